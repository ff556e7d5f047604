/* Commands about disks in use: snapshots of single disks, jobs on their images.
 * commit and snapshot_merge are waited for: the monitor is suspended meanwhile, shows
 * progress on a terminal, and Ctrl-c cancels.  Thread: main. */
#include "monitor/block_jobs.h"

#include "base/opts.h"
#include "vmm/control_block.h"

#include <errno.h>

static bool flag(const struct cmd_args *a, char letter)
{
	return a->flags & 1u << (letter - 'a');
}

int cmd_snapshot_blkdev(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	struct vm_snapshot_blkdev s = {.device = a->text[0],
				       .file = a->text[1],
				       .format = a->text[2],
				       .reuse = flag(a, 'n')};

	/* In the reference the file may be left out for a feature that never came. */
	if (!s.file)
		return err_set(err, -EINVAL, "Parameter 'snapshot-file' is missing");
	return vm_snapshot_blkdev(ctx->vm, &s, ctx->out, err);
}

int cmd_snapshot_blkdev_all(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_snapshot_blkdev_all(ctx->vm, a->text[0], false, ctx->out, err);
}

int cmd_snapshot_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_snapshot_blkdev_internal(ctx->vm, a->text[0], a->text[1], err);
}

int cmd_snapshot_delete_blkdev_internal(struct cmd_ctx *ctx, const struct cmd_args *a,
					struct error *err)
{
	return vm_snapshot_delete_blkdev_internal(ctx->vm, a->text[0], a->text[1], a->text[2], err);
}

int cmd_snapshot_revert(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_snapshot_revert(ctx->vm, a->text[0], err);
}

/* --- waiting for the end ---------------------------------------------------------- */

typedef int start_fn(struct vm *vm, const char *device, struct vm_waiter *w, struct error *err);

struct merge {
	struct monitor_wait wait;
	struct vm_waiter waiter;
	struct vm *vm;
	const char *before; /* the message */
	bool shown;	    /* a progress line stands on the screen */
};

static void interrupt(struct monitor_wait *w)
{
	struct error err = {0};

	/* It may just have ended. */
	(void)vm_block_wait_cancel(container_of(w, struct merge, wait)->vm, &err);
}

static void gone(struct monitor_wait *w)
{
	struct merge *m = container_of(w, struct merge, wait);

	vm_forget_block_waiter(m->vm, &m->waiter);
	free(m);
}

static void progress(struct vm_waiter *w, u64 done, u64 total)
{
	struct merge *m = container_of(w, struct merge, waiter);

	if (!monitor_is_terminal(m->wait.mon) || !total)
		return;
	print_to(monitor_printer(m->wait.mon), "\r%3llu %% of %llu MiB",
		 (unsigned long long)(done * 100 / total), (unsigned long long)(total / MiB));
	m->shown = true;
}

static void done(struct vm_waiter *w, int ret, const char *text)
{
	struct merge *m = container_of(w, struct merge, waiter);
	struct monitor *mon = m->wait.mon;

	if (m->shown)
		print_to(monitor_printer(mon), "\r\033[K");
	if (ret < 0)
		print_to(monitor_printer(mon), "%s%s\n", m->before, text);
	free(m);
	monitor_resume(mon);
}

static int run_waiting(struct cmd_ctx *ctx, start_fn *fn, const char *device, const char *before,
		       struct error *err)
{
	struct merge *m;
	int ret;

	if (!ctx->mon)
		return fn(ctx->vm, device, NULL, err);
	m = xnew(struct merge);
	m->vm = ctx->vm;
	m->before = before;
	m->wait.interrupt = interrupt;
	m->wait.gone = gone;
	m->waiter.done = done;
	m->waiter.progress = progress;
	monitor_suspend(ctx->mon, &m->wait);
	ret = fn(ctx->vm, device, &m->waiter, err);
	if (ret < 0) {
		free(m);
		monitor_resume(ctx->mon);
	}
	return ret;
}

int cmd_commit(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	/* One of the old commands: its messages come without the word Error. */
	if (run_waiting(ctx, vm_commit, a->text[0], "", err) < 0)
		print_to(ctx->out, "%s\n", err->text);
	return 0;
}

int cmd_snapshot_merge(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return run_waiting(ctx, vm_snapshot_merge, a->text[0], "Error: ", err);
}

/* --- jobs ---------------------------------------------------------------------------- */

/* The next word of *at, in place; NULL at the end. */
static char *next_word(char **at)
{
	char *word = *at + strspn(*at, " \t");
	size_t n = strcspn(word, " \t");

	*at = word + n + (word[n] != 0);
	word[n] = 0;
	return n ? word : NULL;
}

static int commit_options(char *text, struct vm_block_job *job, struct error *err)
{
	char *word;

	while ((word = next_word(&text))) {
		char *value = next_word(&text);

		if (strcmp(word, "-t") && strcmp(word, "-b") && strcmp(word, "-s"))
			return err_set(err, -EINVAL, "block_commit: unsupported option '%s'", word);
		if (!value)
			return err_set(err, -EINVAL, "block_commit: a value is missing after %s",
				       word);
		if (word[1] == 't')
			job->top = value;
		else if (word[1] == 'b')
			job->base = value;
		else if (parse_size(value, MiB, &job->speed) < 0)
			return err_set(err, -EINVAL, "invalid size");
	}
	return 0;
}

int cmd_block_commit(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	AUTO_FREE char *text = xstrdup(a->text[1] ? a->text[1] : "");
	struct vm_block_job job = {.device = a->text[0]};
	int ret = commit_options(text, &job, err);

	return ret < 0 ? ret : vm_block_commit(ctx->vm, &job, err);
}

int cmd_block_stream(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	struct vm_block_job job = {.device = a->text[0], .speed = a->number[1], .base = a->text[2]};

	return vm_block_stream(ctx->vm, &job, err);
}

static int control(struct cmd_ctx *ctx, const struct cmd_args *a, enum vm_job_verb verb,
		   struct error *err)
{
	return vm_block_job_control(ctx->vm, a->text[0], verb, a->number[1], err);
}

int cmd_block_job_cancel(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return control(ctx, a, flag(a, 'f') ? VM_JOB_CANCEL_NOW : VM_JOB_CANCEL, err);
}

int cmd_block_job_complete(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return control(ctx, a, VM_JOB_COMPLETE, err);
}

int cmd_block_job_pause(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return control(ctx, a, VM_JOB_PAUSE, err);
}

int cmd_block_job_resume(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return control(ctx, a, VM_JOB_RESUME, err);
}

int cmd_block_job_set_speed(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return control(ctx, a, VM_JOB_SPEED, err);
}

int cmd_info_block_jobs(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_info_block_jobs(ctx->vm, ctx->out);
	return 0;
}
