"""AccountService: the accounts of the API, and their roles under the names that the standard has (DSP0266 §13.3.6)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from pydantic import Field

from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.problems import Refused, not_found
from blockyard.api.redfish.resources import (
    OK,
    Body,
    check_change,
    check_match,
    collection,
    link,
    made,
    new_routes,
    nothing,
    refuse_others,
    reply,
    resource,
    uri,
    wrong,
)
from blockyard.api.routes import accounts as kept
from blockyard.api.security import Here, Owners, Who
from blockyard.control.passwords import MAX_PASSWORD, MIN_PASSWORD
from blockyard.control.roles import Identity, Role

routes = new_routes()

SERVICE = ("AccountService",)
_ACCOUNTS, _ROLES = (*SERVICE, "Accounts"), (*SERVICE, "Roles")
_ACCOUNT = "/v1/AccountService/Accounts/{account}"
_NAMES = {Role.ADMIN: "Administrator", Role.OPERATOR: "Operator", Role.VIEWER: "ReadOnly", Role.OWNER: "TargetOwner"}
_PRIVILEGES = {
    Role.ADMIN: ["Login", "ConfigureManager", "ConfigureUsers", "ConfigureSelf", "ConfigureComponents"],
    Role.OPERATOR: ["Login", "ConfigureSelf", "ConfigureComponents"],
    Role.VIEWER: ["Login", "ConfigureSelf"],
    Role.OWNER: ["Login", "ConfigureSelf"],
}
_Text = Field(None, min_length=1, max_length=MAX_PASSWORD)


class NewAccount(Body):
    UserName: str
    Password: str = Field(min_length=1, max_length=MAX_PASSWORD)
    RoleId: str
    Enabled: bool = True
    AccountTypes: list[str] | None = None


class AccountChange(Body):
    Password: str | None = _Text
    RoleId: str | None = _Text
    Enabled: bool | None = None


@routes.get("/v1/AccountService", Role.VIEWER, Owners.THEIRS, name="redfish_account_service")
async def account_service(request: Request) -> Response:
    """Who may do what."""
    more = {
        "ServiceEnabled": True,
        "MinPasswordLength": MIN_PASSWORD,
        "MaxPasswordLength": MAX_PASSWORD,
        "LocalAccountAuth": "Enabled",
        "HTTPBasicAuth": "Enabled",
        "SupportedAccountTypes": ["Redfish", "WebUI"],
        "Accounts": link(uri(*_ACCOUNTS)),
        "Roles": link(uri(*_ROLES)),
        "Status": OK,
    }
    return reply(request, resource("AccountService", uri(*SERVICE), "AccountService", "Accounts", **more))


@routes.get("/v1/AccountService/Accounts", Role.VIEWER, Owners.THEIRS, name="redfish_accounts")
async def accounts(request: Request, here: Here, who: Who) -> Response:
    """All of them; for whoever is no admin, one's own."""
    names = [each.name for each in here.accounts.all() if who.at_least(Role.ADMIN) or each.name == who.name]
    return reply(request, collection("ManagerAccount", uri(*_ACCOUNTS), [uri(*_ACCOUNTS, name) for name in names]))


@routes.get(_ACCOUNT, Role.VIEWER, Owners.THEIRS, name="redfish_account")
async def account_(account: str, request: Request, here: Here, who: Who) -> Response:
    """One of them."""
    if not (who.at_least(Role.ADMIN) or account == who.name):
        raise not_found(f"account {account!r} of yours")
    return await _tell(request, here, account)


@routes.post("/v1/AccountService/Accounts", Role.ADMIN, status_code=201, name="redfish_new_account")
async def new_account(new: NewAccount, request: Request, here: Here, who: Who) -> Response:
    """Make one. Owners of targets are made by the API, as here nobody could say of which."""
    refuse_others(new)
    if not set(new.AccountTypes or ()) <= {"Redfish", "WebUI"}:
        raise wrong("AccountTypes", "accounts are for Redfish and WebUI")
    wanted = made(kept.NewAccount, name=new.UserName, role=_role(new.RoleId), password=new.Password)
    await kept.create_account(wanted, here, who, Response())
    if not new.Enabled:
        await kept.change_account(new.UserName, made(kept.AccountChange, enabled=False), here, who, Response(), "*")
    return await _tell(request, here, new.UserName, HTTPStatus.CREATED)


@routes.patch(_ACCOUNT, Role.VIEWER, Owners.THEIRS, name="redfish_change_account")
async def change_account(
    account: str, change: AccountChange, request: Request, here: Here, who: Who, if_match: IfMatch = None
) -> Response:
    """Change what is said. Whoever is no admin may have another password, and proves the old one by sending it with this."""
    if not who.at_least(Role.ADMIN):
        _check_own(account, change, who)
    now = await kept.get_account(account, here, Response())
    check_match(if_match, now.changeable)
    check_change(change)
    role = None if change.RoleId is None else _role(change.RoleId)
    wanted = made(kept.AccountChange, role=role, enabled=change.Enabled, password=change.Password)
    await kept.change_account(account, wanted, here, who, Response(), if_match or "*")
    return await _tell(request, here, account, body=change)


@routes.delete(_ACCOUNT, Role.ADMIN, status_code=204, name="redfish_delete_account")
async def delete_account(account: str, request: Request, here: Here, who: Who, if_match: IfMatch = None) -> Response:
    """Remove it, with its tokens."""
    await kept.delete_account(account, here, who, if_match or "*")
    return nothing(request)


@routes.get("/v1/AccountService/Roles", Role.VIEWER, Owners.THEIRS, name="redfish_roles")
async def roles(request: Request) -> Response:
    """What accounts can be."""
    return reply(request, collection("Role", uri(*_ROLES), [uri(*_ROLES, name) for name in _NAMES.values()]))


@routes.get("/v1/AccountService/Roles/{role}", Role.VIEWER, Owners.THEIRS, name="redfish_role")
async def role_(role: str, request: Request) -> Response:
    """One of them."""
    for each, name in _NAMES.items():
        if name == role:
            more = {"IsPredefined": True, "RoleId": name, "AssignedPrivileges": _PRIVILEGES[each], "OemPrivileges": []}
            return reply(request, resource("Role", uri(*_ROLES, name), name, f"{name}: {each}", **more))
    raise not_found(f"role {role!r}")


def _check_own(account: str, change: AccountChange, who: Identity) -> None:
    """Raises Refused."""
    if account != who.name or change.said != {"Password"}:
        raise Refused(HTTPStatus.FORBIDDEN, f"{who.name} is {who.role}: that is for admins")
    if not who.by.startswith("account "):
        raise Refused(HTTPStatus.FORBIDDEN, "send name and old password with this (Basic), and not a session's token")


def _role(name: str) -> Role:
    """Raises Refused."""
    for role, known in _NAMES.items():
        if known == name and role is not Role.OWNER:
            return role
    raise wrong("RoleId", "it is Administrator, Operator or ReadOnly")


async def _tell(request: Request, here: Context, name: str, status: int = 200, body: Body | None = None) -> Response:
    account = await kept.get_account(name, here, Response())
    where, role = uri(*_ACCOUNTS, name), _NAMES[account.role]
    more: dict[str, Any] = {
        "UserName": name,
        "Password": None,
        "RoleId": role,
        "Enabled": account.enabled,
        "Locked": False,
        "AccountTypes": ["Redfish", "WebUI"],
        "Links": {"Role": link(uri(*_ROLES, role))},
    }
    return reply(
        request,
        resource("ManagerAccount", where, name, "Account", **more),
        account.changeable,
        status,
        body,
        steady=True,
    )
