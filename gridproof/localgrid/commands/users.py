"""Commands about users: who one is, whom one may act as, tokens."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from errno import EINVAL, ENOENT, EPERM, EREMOTEIO

from gridproof.localgrid.certificates import (
    Issued,
    Subject,
    host_subject,
    job_subject,
    slashed,
    token_subject,
    user_subject,
)
from gridproof.localgrid.commands.answers import Answer, CommandFailed, Row, is_whole, text
from gridproof.localgrid.commands.caller import Caller, Verb
from gridproof.localgrid.commands.options import read_options
from gridproof.localgrid.core import Core, utc_now
from gridproof.localgrid.formats import java_date
from gridproof.localgrid.users import User

_TOKEN_DAYS = {"user": 31, "job": 2, "host": 400}
_ADMIN_DAYS = 400


def whoami(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """As whom the caller acts, and which certificate says so."""
    names = re.split(r"/(?=(?:C|O|OU|CN)=)", caller.identity.subject)[1:]
    others = ", ".join(caller.account.roles[1:])
    dn = ", ".join(reversed(names))
    if "v" in read_options("whoami", arguments).flags:
        role = f"Role: {caller.user}" + (f" (other roles: {others})" if others else "")
        lines = [f"Username: {caller.user}", role, f"Certificate DN: {dn}", f"Home directory: {caller.home}"]
    else:
        lines = [caller.user]
    return Answer(
        [
            {
                "username": caller.user,
                "role": caller.user,
                "roles": ",".join(caller.account.roles),
                "message": "\n".join(lines),
                "certificate_expires": str(int(caller.expires)),
                "certificate_dn": dn,
                "connected_from": "127.0.0.1",
                "homedir": caller.home,
            }
        ]
    )


def user(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Act as another account or as a group from now on."""
    caller.account = _become(core, caller, arguments[0])
    return Answer([{"homedir": caller.home}])


def _become(core: Core, caller: Caller, role: str) -> User:
    if not caller.account.may_become(role):
        raise CommandFailed(EPERM, f"Switching user {caller.user} to [{role}] failed")
    if role not in core.users:
        raise CommandFailed(EINVAL, f"User {role} cannot be found. Abort")
    return core.users[role]


def groups(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """The caller's groups."""
    roles = "".join(f"{role} " for role in caller.account.roles)
    return text(f"User: {caller.user}, main group: {caller.user}\nMember of groups: {roles}")


def group_members(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Who may act as a group."""
    if len(arguments) != 1:
        raise CommandFailed(EINVAL, "No group name passed")
    if arguments[0] not in core.users:
        raise CommandFailed(ENOENT, f"Group {arguments[0]} does not exist")
    return text(f"Members of {arguments[0]}: {' '.join(core.users.members(arguments[0]))}")


def whois(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """Accounts by name; with ``-s`` by a part of it, with ``-d`` of the certificate's subject, too."""
    options = read_options("whois", arguments)
    found: set[str] = set()
    for name in options.rest:
        if not options.flags & set("sfeda"):
            found.add(name)
            continue
        found |= {user.name for user in core.users if name in user.name}
        if options.flags & set("da"):
            found |= {user.name for user in core.users if name in slashed(user_subject(user.name))}
    accounts = {user.name: user for user in core.users}
    return Answer(
        [
            _account(accounts[name]) if name in accounts else {"message": f"Username not found: {name}"}
            for name in sorted(found)
        ]
    )


def _account(user: User) -> Row:
    roles, subject = ", ".join(user.roles), slashed(user_subject(user.name))
    message = f"Username: {user.name}\n  Roles: {roles}\n  Subject: {subject}"
    return {"message": message, "username": user.name, "roles": roles, "subject": subject}


def token(core: Core, caller: Caller, arguments: Sequence[str]) -> Answer:
    """A certificate with its key: a user token, for administrators also a job's token or a host's.

    It ends with the caller's own certificate at the latest. A job cannot get a user token.
    """
    options = read_options("token", arguments)
    kind = "host" if "hostname" in options.values else "job" if "jobid" in options.values else "user"
    kind = options.values.get("t", kind)
    if kind not in _TOKEN_DAYS:
        raise CommandFailed(EINVAL, f"Unknown token type {kind}: there are {', '.join(_TOKEN_DAYS)}")
    days = options.values.get("v", str(_TOKEN_DAYS[kind]))
    if not is_whole(days):
        raise CommandFailed(EINVAL, f"Cannot parse argument '{days}' of option v")
    subject = _subject(core, caller, kind, options.values)
    issued = _issue(core, caller, kind, subject, int(days))
    expires = java_date(issued.expires.timestamp())
    message = f"DN: {issued.subject}\nExpires: {expires}\n\n{issued.cert}\n{issued.key}"
    answer = Answer([{"tokencert": issued.cert, "tokenkey": issued.key, "message": message}])
    if kind == "user" and (role := options.values.get("u")):
        try:
            caller.account = _become(core, caller, role)
        except CommandFailed as failure:
            failure.rows = answer.rows  # JAliEn gives a token of one's own then
            raise
    return answer


def _subject(core: Core, caller: Caller, kind: str, values: dict[str, str]) -> Subject:
    who, account = values.get("u", ""), caller.account
    if kind == "host":
        if not account.is_admin:
            raise _refused("Only admin can do that")
        return host_subject(values.get("hostname", "localhost"))
    if kind == "job":
        if not account.is_admin:
            raise _refused(f"Only a JobAgent can ask for a Job token, [{caller.user}] is not one")
        number = values.get("jobid", "")
        job = core.queue.get(int(number)) if is_whole(number) else None
        if job is None:
            raise CommandFailed(
                EINVAL, "You should pass a job extension for this type of certificate request"
            )
        return job_subject(job.owner, job.id, max(0, job.run - 1))
    if caller.identity.job:
        raise _refused("You can't request a User token as JobAgent or Job")
    role = who if who in core.users and account.may_become(who) else caller.user
    return token_subject(caller.identity.user if account.has_role(role) else role, role)


def _refused(why: str) -> CommandFailed:
    return CommandFailed(EREMOTEIO, f"Server didn't execute your request, reason was: {why}")


def _issue(core: Core, caller: Caller, kind: str, subject: Subject, days: int) -> Issued:
    now, admin = utc_now(), caller.account.is_admin
    lifetime = datetime.timedelta(days=min(max(1, days), _ADMIN_DAYS if admin else _TOKEN_DAYS[kind]))
    if not admin:
        lifetime = min(lifetime, datetime.timedelta(seconds=caller.expires - now.timestamp()))
    return core.authority.issue(subject, now, lifetime, server=kind == "host")


USER_VERBS: dict[str, Verb] = {
    "whoami": whoami,
    "user": user,
    "groups": groups,
    "groupmembers": group_members,
    "whois": whois,
    "token": token,
}
