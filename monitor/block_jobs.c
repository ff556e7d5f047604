/* Commands about disks in use: snapshots of single disks, jobs on their images.
 * commit and snapshot_merge are waited for (wait.h).  Thread: main. */
#include "monitor/block_jobs.h"

#include "base/opts.h"
#include "monitor/drives.h"
#include "monitor/wait.h"
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
	int ret;

	/* In the reference the file may be left out for a feature that never came. */
	if (!s.file)
		return err_set(err, -EINVAL, "Parameter 'snapshot-file' is missing");
	ret = vm_snapshot_blkdev(ctx->vm, &s, ctx->out, err);
	return s.locked && ctx->mon ? ask_overlay(ctx, &s) : ret;
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

static int start_commit(struct vm *vm, const void *arg, struct vm_waiter *w, struct error *err)
{
	return vm_commit(vm, arg, w, err);
}

static int start_merge(struct vm *vm, const void *arg, struct vm_waiter *w, struct error *err)
{
	return vm_snapshot_merge(vm, arg, w, err);
}

int cmd_commit(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	/* One of the old commands: its messages come without the word Error. */
	static const struct wait_ops ops = {.start = start_commit,
					    .cancel = vm_block_wait_cancel,
					    .forget = vm_forget_block_waiter,
					    .before = ""};

	if (run_waiting(ctx, &ops, a->text[0], err) < 0)
		print_to(ctx->out, "%s\n", err->text);
	return 0;
}

int cmd_snapshot_merge(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	static const struct wait_ops ops = {.start = start_merge,
					    .cancel = vm_block_wait_cancel,
					    .forget = vm_forget_block_waiter,
					    .before = "Error: "};

	return run_waiting(ctx, &ops, a->text[0], err);
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
