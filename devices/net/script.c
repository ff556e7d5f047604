/* Programs that set up and take down an interface.  Thread: main, before and after the
 * machine runs. */
#include "devices/net/script.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* As a shell's child has it: our blocked signals would stay blocked in it. */
static int start(pid_t *pid, const char *path, char *const argv[])
{
	posix_spawnattr_t attr;
	sigset_t none;
	int ret;

	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	ret = posix_spawn(pid, path, NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	return -ret;
}

int script_run(const char *path, const char *ifname, struct error *err)
{
	char *argv[] = {(char *)(uintptr_t)path, (char *)(uintptr_t)ifname, NULL};
	int status = 1 << 8; /* as if it could not be run */
	pid_t pid;

	if (start(&pid, path, argv) == 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	if (status)
		return err_set(err, -EIO, "network script %s failed with status %d", path, status);
	return 0;
}
