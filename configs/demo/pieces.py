"""What disks of guests are made of: a Debian kernel's modules, an initramfs, busybox."""
import os
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def run(*command, **kw):
    return subprocess.run(command, check=True, **kw)


def output(*command):
    return run(*command, stdout=subprocess.PIPE, text=True).stdout


def unpacked_kernel(kind):
    """(folder, version) of a kernel: cloud or generic."""
    folder = output(os.path.join(HERE, "..", "fetch-kernel"), kind).strip()
    return folder, os.listdir(folder + "/lib/modules")[0]


def module_files(kernel, version, names):
    """Paths of the modules and of what they depend on, in loading order."""
    files = []
    for name in names:
        for line in output("modprobe", "-d", kernel, "-S", version, "--show-depends",
                           name).splitlines():
            word = line.split()
            if word[0] == "insmod" and word[1] not in files:
                files.append(word[1])
    return files


def copy_modules(kernel, version, names, tree):
    """These modules for modprobe in a root file system."""
    for f in module_files(kernel, version, names):
        to = os.path.join(tree, os.path.relpath(f, kernel))
        os.makedirs(os.path.dirname(to), exist_ok=True)
        shutil.copy(f, to)
    for f in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy("%s/lib/modules/%s/%s" % (kernel, version, f), tree + "/lib/modules/" + version)
    run("depmod", "-b", tree, version)


def put_busybox(tree, folder):
    busybox = shutil.which("busybox")
    os.makedirs(os.path.join(tree, folder))
    shutil.copy(busybox, os.path.join(tree, folder, "busybox"))
    for applet in output(busybox, "--list").split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(tree, folder, applet))


def make_initrd(kernel, version, modules, path):
    """An initramfs that loads the modules and goes on from the root file system that
    root=LABEL= names, or stays in a shell: see init."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path), prefix="work.") as tree:
        os.chmod(tree, 0o755)
        put_busybox(tree, "bin")
        for folder in ("dev", "proc", "sys", "root", "modules"):
            os.mkdir(os.path.join(tree, folder))
        for n, module in enumerate(module_files(kernel, version, modules)):
            shutil.copy(module, "%s/modules/%02d-%s" % (tree, n, os.path.basename(module)))
        shutil.copy(os.path.join(HERE, "init"), tree)
        with open(path, "wb") as out:
            run("sh", "-c", "find . | sort | cpio -o -H newc --quiet -R 0:0 | gzip -n -6", cwd=tree,
                stdout=out)
