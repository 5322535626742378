"""The roles of the functions, as template.yaml defines them."""

from functools import cache

from doubles.iam import ACCOUNT_ID, REGION, Role, arn
from local.functions import TEMPLATE, Function, template_values
from local.resources import Resources

_PSEUDO = {"AWS::AccountId": ACCOUNT_ID, "AWS::Partition": "aws", "AWS::Region": REGION}
_LOGS = {
    f"{name}.Arn": arn("logs", f"log-group:{name}:*") for name in TEMPLATE.logical_ids("AWS::Logs::LogGroup")
}


@cache
def role_of(function: Function, resources: Resources) -> Role:
    """Return a function's role.

    Args:
        function: one of `local.functions.FUNCTIONS`.
        resources: what the template's references to resources refer to.

    Raises:
        TemplateError: a policy refers to something that has no value here.
    """
    name = TEMPLATE.properties(function.name)["Role"]["Fn::GetAtt"].removesuffix(".Arn")
    values = template_values(resources, {}) | _PSEUDO | _LOGS
    policies = TEMPLATE.resolve(TEMPLATE.properties(name)["Policies"], values)
    return Role(name, [one for policy in policies for one in policy["PolicyDocument"]["Statement"]])
