"""What a failed connection or statement means, in the project's own texts.

The server's own messages are never shown, because they may quote rows and secrets. In a text,
`{sslmode}` stands for the source of that libpq setting (`conninfo.Sources`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from sqlalchemy.exc import TimeoutError as PoolTimeout

from etl.database_errors import BY_THE_SERVER, LOCK_NOT_AVAILABLE, cause, sqlstate


class Diagnosis(msgspec.Struct, frozen=True):
    """Why a unit of work failed."""

    problem: str
    """A clause; the advice follows it."""
    advice: str = "check DATABASE_URL and that PostgreSQL runs, then try again"
    unavailable: bool = True
    """Whether the whole database is unreachable or read-only.

    If not, only this unit of work failed: it conflicted with another session, or hit a limit.
    """
    permanent: bool = False
    """Whether a person must change something, so that waiting does not help."""


def _permanent(problem: str, advice: str) -> Diagnosis:
    return Diagnosis(problem, advice, permanent=True)


READ_ONLY = Diagnosis(
    "the database is read-only (a standby server, or default_transaction_read_only is on)",
    "connect to the primary server, or let an administrator make the database writable",
)
_FULL = Diagnosis(
    "the server has no connection left",
    "end other sessions, or raise max_connections, or the CONNECTION LIMIT of the role or database",
)
_STARTING = Diagnosis("the server is starting up", "wait until it is ready, then try again")
_STOPPING = Diagnosis("the server is shutting down", "start it again")
_LOST = Diagnosis("the connection to the database was lost")
SILENT = Diagnosis(
    "the server does not respond in time", "check the host and port in DATABASE_URL, and firewalls"
)
_NOT_POSTGRESQL = _permanent(
    "the server at this address is not PostgreSQL", "check the host and port in DATABASE_URL"
)
_NO_TLS = _permanent(
    "the server offers no TLS, which sslmode requires",
    "switch TLS on at the server, or change {sslmode}",
)
_UNTRUSTED = _permanent(
    "the server's TLS certificate cannot be verified",
    "check {sslrootcert}, {sslmode} and the host in DATABASE_URL",
)
_NO_ROOT = _permanent(
    "the root certificate's file cannot be read", "correct {sslrootcert}, or change {sslmode}"
)
_NO_CERTIFICATE = _permanent(
    "the TLS certificate or key of this user cannot be used",
    "check {sslcert}, {sslkey} and {sslrootcert}",
)
_WRONG_PASSWORD = _permanent("the database refuses the user or password", "check DATABASE_URL")
_NO_DATABASE = _permanent("the database does not exist", "create it, or check DATABASE_URL")
_BAD_PARAMETER = _permanent(
    "the server or pooler refuses a parameter of the connection", "check {options}"
)


def _wrong(keyword: str) -> Diagnosis:
    """Return the diagnosis for a setting whose value libpq refuses before it connects."""
    return _permanent(f"{{{keyword}}} is wrong", "correct it, or remove it")


# libpq's messages about its own settings, before it connects. The group is the setting's keyword.
# Its messages about files and servers are in `_SIGNS`.
_SETTING = re.compile(
    r'invalid "?(?P<a>[a-z_]+)"? value: '
    r'|invalid integer value ".*" for connection option "(?P<b>[a-z_]+)"$'
    r'|"?(?P<c>[a-z_]+)"? (?:value ".*" invalid when|is greater than "'
    r'|method ".*" is specified more than once)'
    r"|negative (?P<d>require_auth) method"
    r'|weak sslmode ".*" may not be used with (?P<e>sslrootcert|sslnegotiation)='
    r"|invalid SCRAM (?P<scram>client|server) key",
    re.DOTALL,
)

# psycopg provides no SQLSTATE for a refused connection, only the message. Each pattern must match
# from the first word, so that a user-chosen name in the message is never taken for the reason.
_SIGNS: tuple[tuple[str, Diagnosis], ...] = (
    (r'database ".*" does not exist|no such database', _NO_DATABASE),
    (
        r'role ".*" does not exist|no such user',
        _permanent("the database does not know this user", "check DATABASE_URL"),
    ),
    (
        r'role ".*" is not permitted to log in',
        _permanent(
            "the database does not let this user log in", "give it LOGIN, or check DATABASE_URL"
        ),
    ),
    (
        r'permission denied for database ".*"',
        _permanent(
            "this user may not connect to the database", "grant CONNECT, or check DATABASE_URL"
        ),
    ),
    (
        r"no pg_hba\.conf entry .*(?:no encryption|SSL off)$",
        _permanent(
            "the server's pg_hba.conf does not admit this connection without TLS",
            "try sslmode=require in DATABASE_URL, or add a line to pg_hba.conf, "
            "or check DATABASE_URL",
        ),
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        _permanent(
            "the server's pg_hba.conf does not admit this connection",
            "add a line to it, or check DATABASE_URL",
        ),
    ),
    (r"connection requires a valid client certificate", _NO_CERTIFICATE),
    (
        r"authentication method requirement",
        _permanent(
            "the server requests an authentication method that require_auth does not allow",
            "change {require_auth}",
        ),
    ),
    (
        r"server did not request an SSL certificate"
        r"|server accepted connection without a valid SSL certificate",
        _permanent(
            "the server requests no client certificate, which sslcertmode requires",
            "change {sslcertmode}",
        ),
    ),
    (
        r"requirepeer specifies",
        _permanent(
            "the server does not run as the user that requirepeer names", "change {requirepeer}"
        ),
    ),
    (
        r"(?:[\w\"-]+ ){1,4}authentication failed for user|fe_sendauth: no password supplied"
        r"|empty password returned"
        r"|SCRAM authentication|error in SCRAM|password authentication failed|SASL authentication"
        r"|auth failed",
        _WRONG_PASSWORD,
    ),
    (
        r"channel binding (?:is )?required|server does not support channel binding",
        _permanent(
            "the server offers no channel binding, which channel_binding requires",
            "change {channel_binding}",
        ),
    ),
    (
        r"sorry, too many clients|remaining connection slots|too many connections"
        r"|no more connections allowed"
        r"|number of requested standby connections",
        _FULL,
    ),
    (
        r"the database system is starting up|the database system is in recovery mode"
        r"|the database system is not (?:yet )?accepting",
        _STARTING,
    ),
    (
        r"the database system is shutting down|terminating connection"
        r"|pgbouncer (?:database )?is shutting down",
        _STOPPING,
    ),
    (
        r'database ".*" is not currently accepting connections',
        Diagnosis(
            "the database does not accept connections now",
            "set ALLOW_CONNECTIONS, or wait until its maintenance is over",
        ),
    ),
    (
        r'invalid database ".*"|cannot connect to invalid database',
        _permanent(
            "an interrupted DROP DATABASE has damaged the database", "drop it, and create it again"
        ),
    ),
    (r"session is read-only|server is in hot standby mode", READ_ONLY),
    (
        r"session is not read-only|server is not in hot standby mode",
        Diagnosis("no server matches target_session_attrs", "check {target_session_attrs}"),
    ),
    (
        r"server login has been failing|query_wait_timeout|pgbouncer cannot connect"
        r"|client_login_timeout|server_login_retry",
        Diagnosis("the pooler cannot reach the database", "look at the pooler's log"),
    ),
    (r"server does not support SSL|server does not support TLS", _NO_TLS),
    (r"root certificate file|could not (?:read|open|load) root certificate", _NO_ROOT),
    (
        r"SSL error: certificate verify failed|server certificate for|server's certificate"
        r"|could not get server's host name"
        r"|SSL error: .*certificate verify",
        _UNTRUSTED,
    ),
    (
        r"could not (?:read|open|load|find) certificate|could not load (?:private key|SSL)"
        r"|private key file"
        r"|certificate present, but|certificate does not match private key|SSL error: .*alert"
        r"|could not read private key",
        _NO_CERTIFICATE,
    ),
    (r"SSL error: (?:wrong version number|unsupported protocol|packet length too long)", _NO_TLS),
    (
        r"received invalid response|expected authentication request"
        r"|unsupported frontend protocol|invalid response to",
        _NOT_POSTGRESQL,
    ),
    (r'invalid value for parameter "TimeZone"', _wrong("TimeZone")),
    (r'invalid value for parameter "DateStyle"', _wrong("DateStyle")),
    (r'(?:invalid value for )?parameter "geqo"', _wrong("geqo")),
    (
        r"unrecognized configuration parameter|unsupported startup parameter"
        r"|parameter \".*\" cannot be"
        r"|invalid value for parameter|permission denied to set parameter"
        r"|invalid command-line argument"
        r"|unsupported option|invalid startup",
        _BAD_PARAMETER,
    ),
    (
        r"failed to resolve host|could not translate host name|could not look up",
        Diagnosis(
            "the host's name cannot be resolved", "check {host}, and this machine's name server"
        ),
    ),
    (
        r"definition of service|service file|could not (?:open|read) service file"
        r"|syntax error in service file"
        r"|nested service specifications|line \d+ too long in service file",
        _wrong("service"),
    ),
    (
        r"could not parse network address|could not match \d+ host names to \d+ hostaddr"
        r"|could not match .* hostaddr",
        _wrong("hostaddr"),
    ),
    (
        r"invalid port number|could not match \d+ port numbers|invalid integer value .* \"port\"$",
        _wrong("port"),
    ),
    (
        r"invalid SSL protocol version range",
        _permanent(
            "{ssl_min_protocol_version} or {ssl_max_protocol_version} is wrong",
            "correct them, or remove them",
        ),
    ),
    (
        r"GSSAPI encryption required|could not initiate GSSAPI|server doesn't support GSSAPI",
        _permanent(
            "gssencmode requires GSSAPI encryption, which is not available",
            "get a ticket, or change {gssencmode}",
        ),
    ),
    (
        r"Connection refused|could not connect to server: Connection refused",
        Diagnosis(
            "the connection is refused: nothing listens at this address",
            "start PostgreSQL, or check the host and port in DATABASE_URL",
        ),
    ),
    (
        r"No such file or directory",
        Diagnosis(
            "the socket does not exist",
            "start PostgreSQL, or check the host and port in DATABASE_URL",
        ),
    ),
    (
        r"Permission denied",
        _permanent(
            "this operating-system user may not open the socket",
            "check its permissions, or DATABASE_URL",
        ),
    ),
    (
        r"No route to host|Network is unreachable|Host is unreachable|Network is down"
        r"|Cannot assign requested address",
        Diagnosis("the host cannot be reached", "check the host in DATABASE_URL, and the network"),
    ),
    (
        r"timeout expired|connection timeout|Connection timed out|Operation timed out"
        r"|.*timeout expired",
        SILENT,
    ),
    (
        r"server closed the connection unexpectedly|Connection reset by peer|Broken pipe"
        r"|SSL connection has been closed"
        r"|SSL SYSCALL error|could not receive|could not send",
        _LOST,
    ),
)

# Before libpq tries a connection, it can only refuse its settings.
_NOT_TRIED = re.compile(r"connection is bad: (?!.* failed: )")
_NOT_ACCEPTED = _permanent(
    "libpq refuses a setting of the connection",
    "check the parameters of DATABASE_URL and the PG... variables",
)

# The text before the reason: the prefix of psycopg and libpq with host and port, then the severity.
_BEFORE = re.compile(
    r"^(?:- host: .*?, port: .*?, hostaddr: .*?: )?(?:connection (?:failed|is bad): )?"
    r"(?:connection to server (?:at|on socket) .*? failed: )?(?:(?:FATAL|ERROR|PANIC):  )?"
)

_BY_CODE: dict[str, Diagnosis] = {
    "25006": READ_ONLY,
    "53300": _FULL,
    "57P01": _STOPPING,
    "57P02": Diagnosis(
        "the server has crashed and restarts", "wait until it is ready, then try again"
    ),
    "57P03": _STARTING,
    "57P05": Diagnosis("the server's idle_session_timeout ended the session", "raise it"),
    "25P03": Diagnosis(
        "the server's idle_in_transaction_session_timeout ended the session", "raise it"
    ),
    "25P04": Diagnosis(
        "the server's transaction_timeout ended the transaction", "raise it", unavailable=False
    ),
    "57014": Diagnosis(
        "a statement exceeded its time limit",
        "raise database.statement_timeout, or look at the server",
        unavailable=False,
    ),
    LOCK_NOT_AVAILABLE: Diagnosis(
        "another session has held a lock for too long",
        "find the session that holds it, then try again",
        unavailable=False,
    ),
    "53100": Diagnosis("the server's disk is full", "make room for it", unavailable=False),
    "53200": Diagnosis("the server has no memory left", "look at the server", unavailable=False),
    "53400": Diagnosis(
        "a limit of the server's configuration is reached", "look at its log", unavailable=False
    ),
    "40001": Diagnosis(
        "other sessions keep changing the same rows", "try again", unavailable=False
    ),
    "40P01": Diagnosis("other sessions keep locking the same rows", "try again", unavailable=False),
    "58030": Diagnosis(
        "the server cannot read or write its files", "look at its log", unavailable=False
    ),
    "3D000": _NO_DATABASE,
    "28": _WRONG_PASSWORD,
    "08": _LOST,
}
"""By SQLSTATE, and by its class for all other codes of the class."""


def diagnose(error: BaseException, names: Iterable[str] = ()) -> Diagnosis:
    """Return why the unit of work failed, with the SQLSTATE if there is one.

    Args:
        error: raised by psycopg or SQLAlchemy.
        names: the names of the database and the user, as the message may contain them. Their text
            is never taken for the reason.
    """
    if isinstance(error, PoolTimeout):
        return Diagnosis(
            "all connections of this process are in use", "try again", unavailable=False
        )
    code = sqlstate(error)
    if code is None:
        return _by_words(_without(names, str(cause(error))))
    found = (
        _BY_CODE.get(code)
        or _BY_CODE.get(code[:2])
        or Diagnosis(
            "the database refuses the operation", "look at the server's log", unavailable=False
        )
    )
    return msgspec.structs.replace(found, problem=f"{found.problem} (SQLSTATE {code})")


def _without(names: Iterable[str], words: str) -> str:
    """Return the message with `?` for each unprintable name.

    A name with a line break would split the message, and its second line could look like a reason.
    """
    for name in names:
        if not name.isprintable():
            words = words.replace(name, "?")
    return words


def _by_words(words: str) -> Diagnosis:
    """Return the diagnosis of a message without a SQLSTATE.

    With several hosts there are several reasons. A transient one wins, because a retry may help.
    """
    lines = [line for line in words.splitlines() if line.strip()]
    found = [one for one in map(_by_line, lines) if one is not None]
    if found:
        return next((one for one in found if not one.permanent), found[0])
    if any(BY_THE_SERVER.search(line) for line in lines):
        # The message is not in English, or its reason is not in `_SIGNS`.
        return Diagnosis("the server refuses the connection", "look for the reason in its log")
    return _NOT_ACCEPTED if _NOT_TRIED.match(words) else _LOST


def _by_line(line: str) -> Diagnosis | None:
    reason = line[end.end() :] if (end := _BEFORE.match(line)) else line
    if setting := _SETTING.match(reason):
        kind = setting["scram"]
        return _wrong(f"scram_{kind}_key" if kind else next(filter(None, setting.groups())))
    return next((found for sign, found in _SIGNS if re.match(sign, reason)), None)
