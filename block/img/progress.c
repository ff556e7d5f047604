/* Progress and interruption; see progress.h.
 *
 * Signals are read from a descriptor on the loop, so they are dealt with between
 * two steps of the fibers and never in the middle of one; other threads have all
 * of them blocked.  A signal that the parent made us ignore stays ignored. */
#include "block/img/progress.h"

#include "base/io.h"

#include <poll.h>
#include <stdio.h>
#include <sys/signalfd.h>

static void show(struct img_progress *p)
{
	printf("    (%3.2f/100%%)\r", p->percent);
	fflush(stdout);
	p->last_shown = p->percent;
}

static void on_signal(struct loop_watch *watch, u32 revents)
{
	struct img_progress *p = container_of(watch, struct img_progress, watch);
	struct signalfd_siginfo info;

	if (sys_read(watch->fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGUSR1) {
		if (p->shown)
			show(p);
		else
			fprintf(stderr, "    (%3.2f/100%%)\n", p->percent);
	} else {
		/* The pool's thread that reads a passphrase looks at it. */
		__atomic_store_n(&p->interrupted, true, __ATOMIC_RELAXED);
	}
}

static void take_signals(struct img_progress *p)
{
	static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
	struct sigaction old;

	sigemptyset(&p->taken);
	for (unsigned i = 0; i < ARRAY_LEN(numbers); i++)
		if (!sigaction(numbers[i], NULL, &old) && old.sa_handler != SIG_IGN)
			sigaddset(&p->taken, numbers[i]);
	pthread_sigmask(SIG_BLOCK, &p->taken, &p->before);
}

void img_progress_begin(struct img *ctx, struct img_progress *p, bool shown)
{
	int fd;

	*p = (struct img_progress){.ctx = ctx};
	take_signals(p);
	fd = signalfd(-1, &p->taken, SFD_NONBLOCK | SFD_CLOEXEC);
	p->watch.fd = fd;
	if (fd < 0)
		pthread_sigmask(SIG_SETMASK, &p->before, NULL);
	else
		loop_watch_add(fiber_loop(ctx->f), &p->watch, fd, POLLIN, on_signal);
	ctx->stop = &p->interrupted;
	img_progress_show(p, shown);
}

void img_progress_show(struct img_progress *p, bool shown)
{
	p->shown = shown && !p->ctx->quiet;
	if (p->shown)
		show(p);
}

void img_progress_set(struct img_progress *p, u64 done, u64 total)
{
	p->percent = total ? (double)done * 100 / (double)total : 100;
	if (p->shown && p->percent - p->last_shown >= 1)
		show(p);
}

void img_progress_end(struct img_progress *p, bool ok)
{
	if (p->shown && ok) {
		p->percent = 100;
		show(p);
	}
	if (p->shown)
		putchar('\n');
	p->ctx->stop = NULL;
	if (p->watch.fd < 0)
		return;
	loop_watch_del(&p->watch);
	sys_close(p->watch.fd);
	p->watch.fd = -1;
	pthread_sigmask(SIG_SETMASK, &p->before, NULL);
}
