"""Attacks on the machine that runs model-written code. Each defines `attack()`, which returns True where it worked."""

from pathlib import Path
from typing import NamedTuple


class Attack(NamedTuple):
    """`harmless` ones are also tried without a sandbox, where each must work: a broken attack proves nothing."""

    name: str
    program: str
    harmless: bool = True


class Targets(NamedTuple):
    """What is attacked: the ports and the socket of open servers, a secret, a folder, a victim process."""

    tcp: int
    udp: int
    unix: Path
    secret: Path
    folder: Path
    victim: int


def attacks(at: Targets) -> tuple[Attack, ...]:
    folder = str(at.folder)
    return (
        Attack("TCP", f"""
import socket
def attack():
    socket.create_connection(('127.0.0.1', {at.tcp}), 5).sendall(b'hello')
    return True"""),
        Attack("UDP", f"""
import socket
def attack():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('127.0.0.1', {at.udp})) == 5"""),
        Attack("unix socket", f"""
import socket
def attack():
    socket.socket(socket.AF_UNIX).connect({str(at.unix)!r})
    return True"""),
        Attack("read /etc/passwd", "def attack(): return 'root' in open('/etc/passwd').read()"),
        Attack("read a secret file", f"def attack(): return 'hunter2' in open({str(at.secret)!r}).read()"),
        Attack("write outside", f"""
def attack():
    open({folder + '/written'!r}, 'w').write('x')
    return True"""),
        Attack("write in /tmp", f"""
def attack():
    open('/tmp/cope-attack-{at.victim}', 'w').write('x')
    return True"""),
        Attack("write in /dev/shm", f"""
def attack():
    open('/dev/shm/cope-attack-{at.victim}', 'w').write('x')
    return True"""),
        Attack("fork bomb", """
import os
def attack():
    made = 0
    while True:
        if os.fork() == 0:
            while True: pass
        made += 1
        if made > 3: return True""", harmless=False),
        Attack("10 GB", """
def attack():
    taken = [bytearray(1 << 30) for _ in range(10)]
    return True""", harmless=False),
        Attack("200 MB file", f"""
def attack():
    with open({folder + '/big'!r}, 'wb') as file: file.write(bytes(200 << 20))
    return True""", harmless=False),
        Attack("endless loop", """
def attack():
    while True: pass""", harmless=False),
        Attack("endless output", """
def attack():
    while True: print('x' * 1000)""", harmless=False),
        Attack("signal the parent", """
import os, signal
def attack():
    os.kill(os.getppid(), 0)
    os.kill(os.getppid(), signal.SIGTERM)
    return True""", harmless=False),
        Attack("signal another process", f"""
import os
def attack():
    os.kill({at.victim}, 0)
    return True"""),
        Attack("daemon left behind", """
import os, time
def attack():
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.2)
        os._exit(0)
    return True"""),
        Attack("a program of its own", """
import subprocess
def attack(): return subprocess.run(['/bin/true']).returncode == 0"""),
        Attack("ptrace", f"""
import ctypes
def attack(): return ctypes.CDLL(None).ptrace(16, {at.victim}, 0, 0) == 0"""),
        Attack("another process's environment", f"""
def attack(): return b'HUNTER=2' in open('/proc/{at.victim}/environ', 'rb').read()"""),
        Attack("a file's times", f"""
import os
def attack():
    os.utime({str(at.secret)!r})
    return True"""),
        Attack("a higher limit", """
import resource
def attack():
    resource.setrlimit(resource.RLIMIT_NOFILE, (19, 19))
    return resource.getrlimit(resource.RLIMIT_NOFILE) == (19, 19)"""),
    )  # fmt: skip
