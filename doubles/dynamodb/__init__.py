"""DynamoDB in memory: the calls of a boto3 client that a ledger makes, without network, faults or delay."""

from doubles.dynamodb.client import MemoryDynamoDB

__all__ = ["MemoryDynamoDB"]
