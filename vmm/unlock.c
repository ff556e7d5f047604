/* Encrypted drives of a machine: passphrases are asked for by the monitor, the machine
 * waits for them, and what knows a key is kept from others.
 * Thread: control. */
#include "block/unlock.h"

#include "block/blk_control.h"
#include "vmm/blockdev.h"
#include "vmm/unlock.h"
#include "vmm/control_drives.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>

static void print_stderr(struct printer *p, const char *text, size_t bytes)
{
	fwrite(text, 1, bytes, stderr);
}

static char *locked_image(const struct drive *d)
{
	AUTO_FREE char *name = blk_locked_image(d->blk);

	return name ? xasprintf("%s (%s)", d->config->id, name) : NULL;
}

char *vm_locked_image(struct vm *vm, const char *device)
{
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		char *text;

		if (device && strcmp(device, d->config->id))
			continue;
		text = locked_image(d);
		if (text)
			return text;
	}
	return NULL;
}

void vm_print_locked(struct vm *vm, struct printer *p)
{
	struct printer to_stderr = {.print = print_stderr};

	list_for_each (pos, &vm->drives) {
		AUTO_FREE char *text = locked_image(list_entry(pos, struct drive, link));

		if (text)
			print_to(p ? p : &to_stderr,
				 "%s is encrypted: type 'cont' to enter its passphrase\n", text);
	}
}

int vm_check_unlocked(struct vm *vm, struct error *err)
{
	AUTO_FREE char *text = vm_locked_image(vm, NULL);

	return text ? err_set(err, -EACCES, "%s is encrypted: type 'cont' to enter its passphrase",
			      text)
		    : 0;
}

/* A passphrase that is being tried: that takes seconds, and nobody is to stand still. */
struct unlocking {
	struct blk_unlocking u;
	struct vm *vm;
	struct vm_waiter *waiter; /* NULL: gone */
	struct loop_call ended;
};

static void on_main(struct loop_call *call)
{
	struct unlocking *t = container_of(call, struct unlocking, ended);
	struct vm_waiter *w = t->waiter;
	struct error err;
	int ret = blk_unlock_end(&t->u);

	err = t->u.err;
	t->vm->unlocking = NULL;
	free(t);
	if (w)
		w->done(w, ret, err.text);
}

/* [drive's loop] */
static void on_ended(struct blk_unlocking *u)
{
	struct unlocking *t = container_of(u, struct unlocking, u);

	loop_post(t->vm->loop, &t->ended);
}

static int try_now(struct blk *blk, struct key *passphrase, struct error *err)
{
	struct blk_unlocking u = {.passphrase = *passphrase};
	int ret;

	blk_unlock_begin(blk, &u);
	ret = blk_unlock_end(&u);
	*err = u.err;
	return ret;
}

static int try_passphrase(struct vm *vm, struct drive *d, const char *passphrase,
			  struct vm_waiter *w, struct error *err)
{
	struct key key;
	int ret = key_set(&key, passphrase, strlen(passphrase));

	if (ret < 0)
		return err_set_errno(err, ret, "cannot keep the passphrase");
	if (!w)
		return try_now(d->blk, &key, err);
	vm->unlocking = xnew(struct unlocking);
	*vm->unlocking = (struct unlocking){.u = {.passphrase = key, .ended = on_ended},
					    .vm = vm,
					    .waiter = w,
					    .ended.fn = on_main};
	blk_unlock_begin(d->blk, &vm->unlocking->u);
	return 0;
}

int vm_unlock(struct vm *vm, const char *image, const char *passphrase, struct vm_waiter *w,
	      struct error *err)
{
	if (vm->unlocking)
		return err_set(err, -EBUSY, "Another passphrase is being tried");
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		AUTO_FREE char *text = locked_image(d);

		if (text && !strcmp(text, image))
			return try_passphrase(vm, d, passphrase, w, err);
	}
	if (w)
		w->done(w, 0, "");
	return 0;
}

void vm_forget_unlock_waiter(struct vm *vm, struct vm_waiter *w)
{
	if (vm->unlocking && vm->unlocking->waiter == w)
		vm->unlocking->waiter = NULL;
	vm_forget_overlay_waiter(vm, w);
}

void vm_end_unlocking(struct vm *vm)
{
	if (!vm->unlocking)
		return;
	(void)blk_unlock_end(&vm->unlocking->u);
	loop_run_posted(vm->loop);
}

int vm_load_waiting(struct vm *vm, struct printer *p, struct error *err)
{
	struct printer to_stderr = {.print = print_stderr};
	int ret;

	if (!vm->load_waits)
		return 0;
	ret = vm_loadvm(vm, vm->config->loadvm, p ? p : &to_stderr, err);
	vm->load_waits = ret < 0;
	return ret;
}

void vm_hide_memory(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}
