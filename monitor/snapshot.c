/* Commands about snapshots.  savevm ends later than it returns: the monitor is
 * suspended meanwhile, shows progress on a terminal, and Ctrl-c cancels.
 * Thread: main. */
#include "monitor/internal.h"

#include <errno.h>

struct save {
	struct monitor_wait wait;
	struct vm_waiter waiter;
	struct vm *vm;
	bool shown; /* a progress line stands on the screen */
};

static void interrupt(struct monitor_wait *w)
{
	struct save *s = container_of(w, struct save, wait);
	struct error err = {0};

	(void)vm_snapshot_cancel(s->vm, &err); /* it may just have ended */
}

static void gone(struct monitor_wait *w)
{
	struct save *s = container_of(w, struct save, wait);

	vm_forget_waiter(s->vm, &s->waiter);
	free(s);
}

static void progress(struct vm_waiter *w, u64 done, u64 total)
{
	struct save *s = container_of(w, struct save, waiter);

	if (!monitor_is_terminal(s->wait.mon) || !total)
		return;
	print_to(monitor_printer(s->wait.mon), "\r%3llu %% of %llu MiB",
		 (unsigned long long)(done * 100 / total), (unsigned long long)(total / MiB));
	s->shown = true;
}

static void done(struct vm_waiter *w, int ret, const char *text)
{
	struct save *s = container_of(w, struct save, waiter);
	struct monitor *mon = s->wait.mon;

	if (s->shown)
		print_to(monitor_printer(mon), "\r\033[K");
	if (ret < 0)
		print_to(monitor_printer(mon), "Error: %s\n", text);
	free(s);
	monitor_resume(mon);
}

int cmd_savevm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	struct vm_savevm options = {
		.tag = a->text[0],
		.detach = a->flags & 1u << ('d' - 'a'),
		.overlays = a->flags & 1u << ('x' - 'a'),
		.out = ctx->out,
	};
	struct save *s;
	int ret;

	if (options.detach || !ctx->mon)
		return vm_savevm(ctx->vm, &options, NULL, err);
	s = xnew(struct save);
	s->vm = ctx->vm;
	s->wait.interrupt = interrupt;
	s->wait.gone = gone;
	s->waiter.done = done;
	s->waiter.progress = progress;
	monitor_suspend(ctx->mon, &s->wait);
	ret = vm_savevm(ctx->vm, &options, &s->waiter, err);
	if (ret < 0) {
		free(s);
		monitor_resume(ctx->mon);
	}
	return ret;
}

int cmd_loadvm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_loadvm(ctx->vm, a->text[0], ctx->out, err);
}

int cmd_delvm(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_delvm(ctx->vm, a->text[0], err);
}

int cmd_snapshot_cancel(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_snapshot_cancel(ctx->vm, err);
}

int cmd_info_snapshots(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_info_snapshots(ctx->vm, ctx->out, err);
}

int cmd_info_snapshot_job(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_info_snapshot_job(ctx->vm, ctx->out);
	return 0;
}
