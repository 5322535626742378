"""What is deployed: permissions, changes, removal, and the checks before and after."""
