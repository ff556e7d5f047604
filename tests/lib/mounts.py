"""Commands in a mount namespace of their own: on a file system in memory that is small and
full, or read-only.  Nothing of it is seen outside, and it goes away with the command."""
import os
import subprocess

from tools import SLOW

# Everything from $1 to $work; the command; what is left from $work to $1.
SMALL = """
set -e
mount -t tmpfs -o size=64M none "$2"
cp -r "$1"/. "$2"
used=$(df -k --output=used "$2" | tail -1)
mount -o remount,size=$((used + $3))k "$2"
cd "$2"
from=$1
shift 3
set +e
"$@"
status=$?
mount -o remount,size=64M .
rm -f "$from"/*
cp -r ./. "$from"
exit $status
"""
READ_ONLY = """
set -e
mount -t tmpfs none "$2"
cp -r "$1"/. "$2"
mount -o remount,ro "$2"
cd "$2"
shift 3
exec "$@"
"""


def inside(script, folder, mount, number, command, env=None):
    mount.mkdir(exist_ok=True)
    how = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    return subprocess.run([*how, "sh", "-c", script, "sh", str(folder), str(mount), str(number),
                           *map(str, command)],
                          env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60 * SLOW)


def on_full_disk(folder, mount, free_kib, command, env=None):
    """The folder's files on a file system with so much room left; changes come back."""
    return inside(SMALL, folder, mount, free_kib, command, env)


def on_read_only(folder, mount, command):
    """The folder's files on a read-only file system."""
    return inside(READ_ONLY, folder, mount, 0, command)
