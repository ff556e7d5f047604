/* Waiting for the end of a command; see wait.h. */
#include "monitor/wait.h"

struct waiting {
	struct monitor_wait wait;
	struct vm_waiter waiter;
	const struct wait_ops *ops;
	struct vm *vm;
	bool shown; /* a progress line stands on the screen */
};

static void interrupt(struct monitor_wait *w)
{
	struct waiting *s = container_of(w, struct waiting, wait);
	struct error err = {0};

	(void)s->ops->cancel(s->vm, &err); /* it may just have ended */
}

static void gone(struct monitor_wait *w)
{
	struct waiting *s = container_of(w, struct waiting, wait);

	s->ops->forget(s->vm, &s->waiter);
	free(s);
}

static void progress(struct vm_waiter *w, u64 done, u64 total)
{
	struct waiting *s = container_of(w, struct waiting, waiter);

	if (!monitor_is_terminal(s->wait.mon) || !total)
		return;
	print_to(monitor_printer(s->wait.mon), "\r%3llu %% of %llu MiB",
		 (unsigned long long)(done * 100 / total), (unsigned long long)(total / MiB));
	s->shown = true;
}

static void done(struct vm_waiter *w, int ret, const char *text)
{
	struct waiting *s = container_of(w, struct waiting, waiter);
	struct monitor *mon = s->wait.mon;

	if (s->shown)
		print_to(monitor_printer(mon), "\r\033[K");
	if (ret < 0)
		print_to(monitor_printer(mon), "%s%s\n", s->ops->before, text);
	free(s);
	monitor_resume(mon);
}

int run_waiting(struct cmd_ctx *ctx, const struct wait_ops *ops, const void *arg, struct error *err)
{
	struct waiting *s;
	int ret;

	if (!ctx->mon)
		return MIN(ops->start(ctx->vm, arg, NULL, err), 0);
	s = xnew(struct waiting);
	s->ops = ops;
	s->vm = ctx->vm;
	s->wait.interrupt = interrupt;
	s->wait.gone = gone;
	s->waiter.done = done;
	s->waiter.progress = progress;
	monitor_suspend(ctx->mon, &s->wait);
	ret = ops->start(ctx->vm, arg, &s->waiter, err);
	if (ret != 0) {
		free(s);
		monitor_resume(ctx->mon);
	}
	return MIN(ret, 0);
}
