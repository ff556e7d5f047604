/* -daemonize and -pidfile; see daemon.h.  Thread: main, before and after all others.
 *
 * The child keeps standard error until it detaches, so every failure of the start
 * is seen where the command was typed. */
#include "vmm/daemon.h"

#include "base/io.h"
#include "vmm/config.h"

#include <errno.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Wait for the child's byte; when the pipe closes without one, it has failed. */
static void wait_for_child(int fd, pid_t child)
{
	int status = 0;
	u8 ok;

	if (sys_read(fd, &ok, 1) == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

static int fork_child(struct daemon *d, struct error *err)
{
	int fds[2];
	pid_t child;

	if (pipe(fds) < 0)
		return err_set_errno(err, -errno, "cannot make a pipe");
	fflush(NULL);
	child = fork();
	if (child < 0)
		return err_set_errno(err, -errno, "cannot fork");
	if (child) {
		sys_close(fds[1]);
		wait_for_child(fds[0], child);
	}
	sys_close(fds[0]);
	d->ready_fd = fds[1];
	setsid();
	return 0;
}

/* Locked for as long as we live: a second machine with the same file is refused. */
static int write_pid(struct daemon *d, struct error *err)
{
	char text[24];
	int n, ret;

	d->pid_fd = sys_open(d->pid_file, O_RDWR | O_CREAT, 0644);
	if (d->pid_fd < 0)
		return err_set_errno(err, d->pid_fd,
				     "cannot create PID file: Could not create '%s'", d->pid_file);
	if (flock(d->pid_fd, LOCK_EX | LOCK_NB) < 0)
		return err_set_errno(err, -errno, "cannot create PID file: Could not lock '%s'",
				     d->pid_file);
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	ret = ftruncate(d->pid_fd, 0) < 0 ? -errno : sys_write_all(d->pid_fd, text, (size_t)n);
	return ret < 0 ? err_set_errno(err, ret, "cannot write PID file '%s'", d->pid_file) : 0;
}

int daemon_begin(struct daemon *d, const struct config *c, struct error *err)
{
	int ret = 0;

	*d = (struct daemon){.ready_fd = -1, .pid_fd = -1};
	if (c->daemonize)
		ret = fork_child(d, err);
	if (ret < 0 || !c->pid_file)
		return ret;
	d->pid_file = c->pid_file;
	ret = write_pid(d, err);
	/* The daemon changes its directory before it removes the file. */
	if (ret == 0)
		d->pid_file = d->pid_path = realpath(c->pid_file, NULL);
	if (ret < 0 && d->pid_fd >= 0) {
		sys_close(d->pid_fd);
		d->pid_fd = -1;
	}
	return ret;
}

int daemon_detach(struct daemon *d, struct error *err)
{
	static const u8 ok = 1;
	int null;

	if (d->ready_fd < 0)
		return 0;
	null = sys_open("/dev/null", O_RDWR, 0);
	if (null < 0)
		return err_set_errno(err, null, "cannot open /dev/null");
	if (chdir("/") < 0)
		return err_set_errno(err, -errno, "cannot change directory to /");
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	sys_close(null);
	sys_write_all(d->ready_fd, &ok, 1);
	sys_close(d->ready_fd);
	d->ready_fd = -1;
	return 0;
}

void daemon_end(struct daemon *d)
{
	if (d->pid_fd >= 0) {
		if (d->pid_file)
			unlink(d->pid_file);
		sys_close(d->pid_fd);
	}
	free(d->pid_path);
	if (d->ready_fd >= 0)
		sys_close(d->ready_fd);
}
