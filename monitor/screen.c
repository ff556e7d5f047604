/* Commands about the screen, who may see it, and what is pointed at on it. */
#include "monitor/screen.h"

#include <errno.h>

int cmd_screendump(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	return vm_screendump(ctx->vm, a->text[0], a->given[1] ? a->text[1] : NULL, err);
}

/* --- the mouse ------------------------------------------------------------------ */

/* Steps may be negative, so they are words and no expressions.  What is no number
 * counts 0, as in the reference. */
static s32 steps(const struct cmd_args *a, unsigned position)
{
	long value = a->given[position] ? strtol(a->text[position], NULL, 0) : 0;

	return (s32)MIN(MAX(value, (long)INT16_MIN), (long)INT16_MAX);
}

int cmd_mouse_move(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_mouse_move(ctx->vm, steps(a, 0), steps(a, 1), steps(a, 2));
	return 0;
}

int cmd_mouse_button(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	vm_mouse_button(ctx->vm, (u32)a->number[0]);
	return 0;
}

int cmd_mouse_set(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	/* The reference says it without the word Error. */
	if (vm_mouse_set(ctx->vm, (u32)MIN(a->number[0], (u64)UINT32_MAX), err) < 0)
		print_to(ctx->out, "%s\n", err->text);
	return 0;
}

/* --- passwords ------------------------------------------------------------------- */

static int check_protocol(const char *protocol, struct error *err)
{
	if (!strcmp(protocol, "spice"))
		return err_set(err, -EINVAL, "spice is not in use");
	if (strcmp(protocol, "vnc"))
		return err_set(err, -EINVAL, "invalid parameter value: %s", protocol);
	return 0;
}

static int set_password(struct cmd_ctx *ctx, const char *display, const char *password,
			struct error *err)
{
	if (!vm_vnc_takes_passwords(ctx->vm, display))
		print_to(ctx->out, "If you want use passwords please enable password auth using "
				   "'-vnc ${dpy},password'.\n");
	return vm_vnc_set_password(ctx->vm, display, password, err);
}

/* Of the actions for who is connected only keeping them is there for VNC. */
int cmd_set_password(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	const char *action = a->given[3] ? a->text[3] : "keep";
	int ret = check_protocol(a->text[0], err);

	if (ret < 0)
		return ret;
	if (!strcmp(action, "fail") || !strcmp(action, "disconnect"))
		return err_set(err, -EINVAL, "Invalid parameter 'connected'");
	if (strcmp(action, "keep"))
		return err_set(err, -EINVAL, "invalid parameter value: %s", action);
	return set_password(ctx, a->text[2], a->text[1], err);
}

int cmd_expire_password(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	int ret = check_protocol(a->text[0], err);

	return ret < 0 ? ret : vm_vnc_expire(ctx->vm, a->text[2], a->text[1], err);
}

/* --- change vnc password ----------------------------------------------------------- */

struct question {
	struct monitor_wait wait;
	struct vm *vm;
};

static void answered(struct monitor_wait *w, const char *text)
{
	struct question *q = container_of(w, struct question, wait);
	struct monitor *mon = w->mon;
	struct error err;

	if (text && vm_vnc_set_password(q->vm, NULL, text, &err) < 0)
		print_to(monitor_printer(mon), "Error: %s\n", err.text);
	free(q);
	monitor_resume(mon);
}

static void question_gone(struct monitor_wait *w)
{
	free(container_of(w, struct question, wait));
}

static void ask_password(struct cmd_ctx *ctx)
{
	struct question *q = xnew(struct question);

	q->vm = ctx->vm;
	q->wait.gone = question_gone;
	monitor_suspend(ctx->mon, &q->wait);
	monitor_ask_secret(ctx->mon, "Password: ", answered);
}

/* The text after "vnc password" is the password; without it, it is asked for. */
int cmd_change_vnc(struct cmd_ctx *ctx, const char *what, const char *password, struct error *err)
{
	if (strcmp(what, "password")) {
		print_to(ctx->out, "Expected 'password' after 'vnc'\n");
		return 0;
	}
	if (password || !ctx->mon)
		return set_password(ctx, NULL, password ? password : "", err);
	if (!vm_vnc_takes_passwords(ctx->vm, NULL))
		return set_password(ctx, NULL, "", err);
	ask_password(ctx);
	return 0;
}
