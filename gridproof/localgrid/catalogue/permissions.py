"""What a user may do with an entry of the catalogue, by owner, group and mode: in Python and in SQL. Pure."""

from __future__ import annotations

from gridproof.localgrid.users import EVERYBODY, User

READ, WRITE, PASS = 4, 2, 1

OPEN_TO_ALL = "perm GLOB '[57][57][57]'"  # of a directory that anybody may list and pass


def allowed(user: User, owner: str, gowner: str, perm: str, right: int) -> bool:
    """Whether a user has all of ``right`` on what has this owner, group and mode.

    As in JAliEn the first digit counts for who may act as the owner, the second for who is in the group,
    the third for everybody else; an administrator may do everything.
    """
    if user.is_admin:
        return True
    digit = perm[0] if user.may_become(owner) else perm[1] if user.has_role(gowner) else perm[2]
    return int(digit) & right == right


def refused(user: User, right: int) -> tuple[str, tuple[str | int, ...]]:
    """The same in SQL: the condition, with its values, that a row of entries is not :func:`allowed`."""
    if user.is_admin:
        return "0", ()
    role, roles = _among(user)
    digit = f"substr(perm, CASE WHEN owner {role} THEN 1 WHEN gowner {role} THEN 2 ELSE 3 END, 1)"
    return f"CAST({digit} AS INTEGER) & ? <> ?", (*roles, *roles, right, right)


def owned_by(user: User) -> tuple[str, tuple[str, ...]]:
    """In SQL: the condition, with its values, that a user may act as the owner of an entry."""
    if user.is_admin:
        return "1", ()
    role, roles = _among(user)
    return f"owner {role}", roles


def _among(user: User) -> tuple[str, tuple[str, ...]]:
    roles = (*user.roles, EVERYBODY)
    return f"IN ({', '.join('?' * len(roles))})", roles
