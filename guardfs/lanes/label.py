"""From a writer to the name of its lane, while no policy names lanes: what is run, in one word. Pure.

The label of an interpreter is the program it interprets: nobody is helped by a hundred lanes called ``node``.
A program that sets its title (OpenClaw's processes show as ``openclaw``) is believed over its script's name.
"""

from __future__ import annotations

import re

from guardfs.lanes.writer import Process, Writer

_UNSAFE = re.compile(r"[^A-Za-z0-9_.:@+-]+")
_DELETED = " (deleted)"

_INTERPRETER = re.compile(
    r"(?P<family>node|nodejs|python|pypy|bash|dash|sh|ash|busybox|zsh|ksh|fish|perl|ruby|deno|bun|java|php|lua)"
    r"(?:-?[0-9][0-9.]*[a-z]?)?"
)

# options that take the next argument, by family, so that it is not mistaken for the script
_TAKES_VALUE = {
    "node": {"-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions",
             "--env-file", "--title", "--inspect-port"},
    "python": {"-W", "-X", "--check-hash-based-pycs"},
    "shell": {"-o", "+o", "-O", "+O", "--rcfile", "--init-file"},
    "perl": {"-I"},
    "ruby": {"-I", "-r", "-C", "-E"},
    "java": {"-cp", "-classpath", "--class-path", "-p", "--module-path", "--add-modules", "--add-opens",
             "--add-exports", "--add-reads"},
    "php": {"-c", "-d"},
}  # fmt: skip

# options after which code follows as text: there is no script then
_INLINE = {
    "node": {"-e", "--eval", "-p", "--print", "-pe"},
    "perl": {"-e", "-E"},
    "ruby": {"-e"},
    "php": {"-r"},
    "lua": {"-e"},
}

_FAMILY = {"nodejs": "node", "pypy": "python", "bash": "shell", "dash": "shell", "sh": "shell",
           "ash": "shell", "busybox": "shell", "zsh": "shell", "ksh": "shell", "fish": "shell"}  # fmt: skip

_SUBCOMMANDS = {"deno": {"run", "serve", "task"}, "bun": {"run"}}

_SCRIPT_SUFFIXES = (".mjs", ".cjs", ".js", ".mts", ".cts", ".ts", ".py", ".pyc", ".pyz", ".sh", ".bash",
                    ".pl", ".rb", ".jar", ".php", ".lua")  # fmt: skip

# script names that say nothing; the directory above them does (node_modules/openclaw/dist/index.js)
_NAMELESS = {"index", "main", "__main__", "cli", "entry", "app", "start"}
_NAMELESS_DIRECTORIES = {"", ".", "..", "dist", "build", "lib", "bin", "src", "out"}


def lane_of(writer: Writer) -> str:
    """The lane's label: letters, digits and ``_.:@+-`` only, never empty.

    ``outside``, ``kernel`` and ``exited`` stand for themselves: nothing is known of such a caller beyond
    that.
    """
    if writer.known in ("kernel", "outside"):
        return writer.known
    process = writer.process
    if process is None or process.exe is None:
        if writer.known == "exited":
            return "exited"
        return _clean(writer.comm) or "hidden"
    return _clean(_program(writer, process)) or _clean(writer.comm) or "unnamed"


def _program(writer: Writer, process: Process) -> str:
    exe = _basename((process.exe or "").removesuffix(_DELETED))
    match = _INTERPRETER.fullmatch(exe)
    if match is None:
        return exe
    family = _FAMILY.get(match["family"], match["family"])
    args = process.args
    title = _title(exe, args)
    if title:
        return title
    named = _interpreted(family, args)
    if named:
        return named
    if writer.main and writer.comm and not _INTERPRETER.fullmatch(writer.comm) and exe.startswith("node"):
        # a title longer than the command line is cut in the arguments, but whole in the main thread's name
        return exe if writer.comm in ("MainThread", "node-MainThread") else writer.comm
    return exe


def _title(exe: str, args: tuple[str, ...]) -> str:
    """What a program calls itself in its argument list ("openclaw", "nginx: worker"), if it does."""
    if not args or not args[0]:
        return ""
    first = args[0].split(None, 1)[0] if args[0].strip() else ""
    name = _basename(first).removeprefix("-").rstrip(":")
    if not name or name == exe or _INTERPRETER.fullmatch(name):
        return ""
    return name


def _interpreted(family: str, args: tuple[str, ...]) -> str:
    """The script, module or jar in an interpreter's arguments; empty if there is none."""
    takes_value = _TAKES_VALUE.get(family, set())
    inline = _INLINE.get(family, set())
    subcommands = _SUBCOMMANDS.get(family, set())
    rest = list(args[1:])
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return _script(rest[0]) if rest else ""
        if argument in ("-", ""):
            return ""
        if not argument.startswith(("-", "+")):
            if argument in subcommands:
                continue
            return argument.rpartition(".")[2] if family == "java" else _script(argument)
        if argument in inline:
            return ""
        if family == "shell" and re.fullmatch(r"-[a-z]*[cs][a-z]*", argument):
            return ""
        if family == "python":
            short = re.fullmatch(r"-[bBdEhiIOPqRsStuvVx]*(?P<what>[cm])(?P<value>.*)", argument, re.DOTALL)
            if short is not None:
                module = short["value"] or (rest[0] if rest else "")
                return _module(module) if short["what"] == "m" else ""
        if family == "java" and argument in ("-jar", "-m", "--module"):
            target = rest[0] if rest else ""
            return _script(target) if argument == "-jar" else target.rpartition("/")[2].rpartition(".")[2]
        if argument in takes_value and rest:
            rest.pop(0)
    return ""


def _module(name: str) -> str:
    return name.removesuffix(".__main__")


def _script(path: str) -> str:
    """``/srv/tools/backup.py`` -> ``backup``; a name that says nothing gives way to its directory's."""
    name = _basename(path)
    for suffix in _SCRIPT_SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            name = name[: -len(suffix)]
            break
    if name not in _NAMELESS:
        return name
    for directory in reversed(path.split("/")[:-1]):
        if directory not in _NAMELESS_DIRECTORIES:
            return directory
    return name


def _basename(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _clean(name: str) -> str:
    return _UNSAFE.sub("-", name).strip("-")
