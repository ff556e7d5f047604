/* cowvm: from the command line to a running machine and back to an exit status.
 *
 * Order: options, daemonize (a fork, so before any thread), signals blocked (every
 * thread inherits that; they arrive by a descriptor on the main loop), the machine,
 * the loop, and everything undone in reverse. */
#define _GNU_SOURCE
#include "base/io.h"
#include "base/log.h"
#include "vmm/daemon.h"
#include "vmm/unlock.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct signals {
	struct loop_watch watch;
	struct vm *vm;
};

/* " (name)" of a process, or nothing when it is gone. */
static void process_name(u32 pid, char *to, size_t room)
{
	char path[32], name[32];
	s64 n;
	int fd;

	*to = 0;
	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	fd = sys_open(path, O_RDONLY, 0);
	if (fd < 0)
		return;
	n = sys_read(fd, name, sizeof(name) - 1);
	sys_close(fd);
	if (n <= 0)
		return;
	name[n - 1] = 0; /* its newline */
	snprintf(to, room, " (%s)", name);
}

static void signal_arrived(struct loop_watch *watch, u32 revents)
{
	struct signals *s = container_of(watch, struct signals, watch);
	struct signalfd_siginfo info;
	char name[40];

	if (sys_read(watch->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_pid) {
		process_name(info.ssi_pid, name, sizeof(name));
		log_error("terminating on signal %u from pid %u%s", info.ssi_signo, info.ssi_pid,
			  name);
	} else {
		log_error("terminating on signal %u", info.ssi_signo);
	}
	vm_quit(s->vm);
}

/* Of those that end us in order; blocked here and in every thread to come. */
static int signals_open(struct error *err)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return fd < 0 ? err_set_errno(err, -errno, "cannot watch for signals") : fd;
}

static int run_loop(struct vm *vm, struct loop *loop, struct daemon *d, struct error *err)
{
	struct signals signals = {.vm = vm};
	int fd = signals_open(err), ret;

	if (fd < 0)
		return fd;
	loop_watch_add(loop, &signals.watch, fd, POLLIN, signal_arrived);
	ret = vm_start(vm, err);
	if (ret == 0)
		ret = daemon_detach(d, err);
	if (ret == 0)
		loop_run(loop);
	loop_watch_del(&signals.watch);
	sys_close(fd);
	return ret;
}

/* The exit status, or a negative errno. */
static int run_vm(const struct config *c, struct daemon *d, struct error *err)
{
	struct loop *loop;
	struct vm *vm;
	int ret = loop_new(&loop, "main", LOOP_AUTO, err);

	if (ret < 0)
		return ret;
	ret = vm_new(&vm, c, loop, err);
	if (ret == 0) {
		ret = run_loop(vm, loop, d, err);
		if (ret == 0)
			ret = vm_exit_status(vm);
		vm_free(vm);
	}
	loop_free(loop);
	return ret;
}

static int run(const struct config *c, struct error *err)
{
	struct daemon d;
	int ret;

	if (c->log_file && log_set_file(c->log_file, err) < 0)
		return err->code;
	if (c->process_name)
		prctl(PR_SET_NAME, c->process_name);
	if (c->secrets.n)
		vm_hide_memory();
	ret = daemon_begin(&d, c, err);
	if (ret < 0)
		return ret;
	ret = run_vm(c, &d, err);
	daemon_end(&d);
	return ret;
}

int main(int argc, char **argv)
{
	struct error err;
	struct config c;
	int ret;

	log_set_program("cowvm");
	config_init(&c);
	ret = config_parse(&c, argc, argv, &err);
	if (ret == 0 && !c.writes_nothing)
		ret = run(&c, &err);
	if (ret < 0)
		log_error("%s", err.text);
	config_fini(&c);
	return ret < 0 ? 1 : ret;
}
