/* Commands that ask for passphrases: `cont` for those of every locked image, one after
 * the other, block_passwd for those of one drive, snapshot_blkdev for that of an image
 * which is to go on top of one.  Typed text is not shown, and
 * wiped as soon as it is being tried, which takes its time.  Thread: main. */
#include "monitor/drives.h"

#include <errno.h>

#define TRIES_MOST 3

struct unlock {
	struct monitor_wait wait;
	struct vm_waiter waiter;
	struct vm *vm;
	char *device; /* NULL: all of them, and go on */
	char *image;  /* that is being asked about */
	bool overlay; /* it goes on top of the device */
	char *format; /* in this format; NULL: the default */
	unsigned tries;
	bool once; /* the passphrase was given: nobody is asked */
};

static void unlock_free(struct unlock *u)
{
	free(u->device);
	free(u->image);
	free(u->format);
	free(u);
}

static void gone(struct monitor_wait *w)
{
	struct unlock *u = container_of(w, struct unlock, wait);

	vm_forget_unlock_waiter(u->vm, &u->waiter);
	unlock_free(u);
}

/* Ctrl-c while a question stands is its answer; an answer that is being tried is. */
static void interrupt(struct monitor_wait *w)
{
}

static int go_on(struct vm *vm, struct printer *p, struct error *err)
{
	int ret = vm_load_waiting(vm, p, err);

	return ret < 0 ? ret : vm_cont(vm, err);
}

static void end(struct unlock *u, int ret, const char *text)
{
	struct monitor *mon = u->wait.mon;

	if (ret < 0)
		print_to(monitor_printer(mon), "Error: %s\n", text);
	unlock_free(u);
	monitor_resume(mon);
}

static void answer(struct monitor_wait *w, const char *text);

static void ask(struct unlock *u)
{
	print_to(monitor_printer(u->wait.mon), "%s is encrypted.\n", u->image);
	monitor_ask_secret(u->wait.mon, "Password: ", answer);
}

/* The next image, or what was wanted in the first place. */
static void next(struct unlock *u)
{
	struct error err = {0};
	int ret = 0;

	free(u->image);
	u->image = vm_locked_image(u->vm, u->device);
	u->tries = 0;
	if (u->image) {
		ask(u);
		return;
	}
	if (!u->device)
		ret = go_on(u->vm, monitor_printer(u->wait.mon), &err);
	end(u, ret, err.text);
}

static void tried(struct vm_waiter *w, int ret, const char *text)
{
	struct unlock *u = container_of(w, struct unlock, waiter);

	if (ret == 0 && !u->once) {
		next(u);
	} else if (ret == -EACCES && !u->once && ++u->tries < TRIES_MOST) {
		print_to(monitor_printer(u->wait.mon), "%s\n", text);
		ask(u);
	} else {
		end(u, ret, text);
	}
}

static int begin_try(struct unlock *u, const char *passphrase, struct error *err)
{
	struct vm_snapshot_blkdev s = {.device = u->device,
				       .file = u->image,
				       .format = u->format,
				       .reuse = true,
				       .passphrase = passphrase,
				       .waiter = &u->waiter};

	return u->overlay ? vm_snapshot_blkdev(u->vm, &s, NULL, err)
			  : vm_unlock(u->vm, u->image, passphrase, &u->waiter, err);
}

static void try(struct unlock *u, const char *passphrase)
{
	struct error err = {0};
	int ret = begin_try(u, passphrase, &err);

	if (ret < 0)
		end(u, ret, err.text);
}

static void answer(struct monitor_wait *w, const char *text)
{
	struct unlock *u = container_of(w, struct unlock, wait);
	struct error err = {0};

	if (text) {
		try(u, text);
		return;
	}
	err_set(&err, -EINTR, "%s is still encrypted", u->image);
	end(u, -EINTR, err.text);
}

static struct unlock *start(struct cmd_ctx *ctx, const char *device, char *image)
{
	struct unlock *u = xnew(struct unlock);

	u->vm = ctx->vm;
	u->device = device ? xstrdup(device) : NULL;
	u->image = image;
	u->wait.interrupt = interrupt;
	u->wait.gone = gone;
	u->waiter.done = tried;
	monitor_suspend(ctx->mon, &u->wait);
	return u;
}

int cmd_cont(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	char *image = ctx->mon ? vm_locked_image(ctx->vm, NULL) : NULL;

	if (!image)
		return go_on(ctx->vm, ctx->out, err);
	ask(start(ctx, NULL, image));
	return 0;
}

int ask_passphrase(struct cmd_ctx *ctx, const char *device)
{
	char *image = ctx->mon ? vm_locked_image(ctx->vm, device) : NULL;

	if (image)
		ask(start(ctx, device, image));
	return 0;
}

int ask_overlay(struct cmd_ctx *ctx, const struct vm_snapshot_blkdev *s)
{
	struct unlock *u = start(ctx, s->device, xstrdup(s->file));

	u->overlay = true;
	u->format = s->format ? xstrdup(s->format) : NULL;
	ask(u);
	return 0;
}

int cmd_block_passwd(struct cmd_ctx *ctx, const struct cmd_args *a, struct error *err)
{
	const char *device = a->text[0], *passphrase = a->text[1];
	char *image;
	int ret;

	if (!vm_has_drive(ctx->vm, device))
		return err_set(err, -ENODEV, "Device '%s' not found", device);
	image = vm_locked_image(ctx->vm, device);
	if (!image)
		return err_set(err, -EINVAL, "Device '%s' is not locked", device);
	if (ctx->mon) {
		struct unlock *u = start(ctx, device, image);

		u->once = passphrase != NULL;
		if (passphrase)
			try(u, passphrase);
		else
			ask(u);
		return 0;
	}
	ret = passphrase ? vm_unlock(ctx->vm, image, passphrase, NULL, err)
			 : err_set(err, -EINVAL, "Parameter 'password' is missing");
	free(image);
	return ret;
}
