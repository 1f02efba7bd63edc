"""Who may use the Grid: accounts, and the groups (AliEn's roles) that they are in. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gridproof.errors import LocalGridError
from gridproof.localgrid.quotas import Quota, Quotas

ADMIN = "admin"  # may do everything; always there
EVERYBODY = "users"  # a group that everybody is in
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True)
class User:
    """An account; ``groups`` are those beside the one of its own name, ``home`` is ``/local/user/j/jdoe/``.

    Who is in a group may act as an account of that name, too: AliEn calls both roles. Who is in ``admin``
    may do everything.
    """

    name: str
    groups: tuple[str, ...] = ()
    home: str = ""
    quota: Quota | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        home = self.home or f"/local/user/{self.name[:1].lower()}/{self.name}"
        object.__setattr__(self, "home", posixpath.join(home, ""))

    @property
    def roles(self) -> tuple[str, ...]:
        """Its own name first."""
        return tuple(dict.fromkeys((self.name, *self.groups)))

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.roles

    def may_become(self, role: str) -> bool:
        """Whether it may act as ``role``: itself or a group of its own; an administrator as anyone."""
        return bool(role) and (role in (*self.roles, EVERYBODY) or self.is_admin)

    def has_role(self, role: str) -> bool:
        """Whether it is in the group ``role``."""
        return role in (*self.roles, EVERYBODY)


def read_user(text: str) -> User:
    """``jdoe`` or ``jdoe:pwg,vobox``."""
    name, _, groups = text.partition(":")
    return User(name, tuple(filter(None, groups.split(","))))


DEFAULT_USERS = (User("gridproof", home="/local/user/g/gproof/"), User("guest"))


class Users:
    """All accounts, the first of which is whom the Grid's environment speaks for; ``admin`` is added.

    ``quota`` is that of the users who are given none.

    Raises:
        LocalGridError: no accounts, a name that cannot be, two with one name or one home.
    """

    def __init__(self, accounts: Iterable[User], quota: Quota | None = None) -> None:
        given = tuple(accounts)
        if not given:
            raise LocalGridError("An embedded Grid needs at least one user")
        for name in (role for user in given for role in user.roles):
            if not _NAME.fullmatch(name):
                raise LocalGridError(
                    f"{name!r} cannot be a user or a group of the embedded Grid: letters, digits, - and _,"
                    " a letter first, at most 32"
                )
        for name in (ADMIN, EVERYBODY):
            if any(user.name == name for user in given):
                raise LocalGridError(f"The user {name} of the embedded Grid is fixed: leave it out")
        accounts = (*given, User(ADMIN))
        for what in ("name", "home"):
            values = [getattr(user, what) for user in accounts]
            if twice := next((value for value in values if values.count(value) > 1), ""):
                raise LocalGridError(f"Two users of the embedded Grid have the {what} {twice}")
        self._accounts = {user.name: user for user in accounts}
        self._roles = {role for user in accounts for role in user.roles}
        self.default = given[0]
        self.quotas = Quotas({user.name: user.quota for user in given if user.quota}, quota)

    def __iter__(self) -> Iterator[User]:
        return iter(self._accounts.values())

    def __contains__(self, role: object) -> bool:
        """Whether there is an account or a group of this name."""
        return role in self._roles

    def __getitem__(self, role: str) -> User:
        """The account of this name; where there is none, a group's, which has no other roles."""
        return self._accounts.get(role) or User(role)

    def members(self, role: str) -> list[str]:
        """The accounts that may act as ``role``, by name."""
        return sorted(user.name for user in self if user.has_role(role))
