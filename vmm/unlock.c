/* Encrypted drives of a machine: passphrases are asked for by the monitor, the machine
 * waits for them, and what knows a key is kept from others.
 * Thread: control. */
#include "block/unlock.h"

#include "block/blk_control.h"
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

static int unlock(struct drive *d, const char *passphrase, struct error *err)
{
	struct key key;
	int ret = key_set(&key, passphrase, strlen(passphrase));

	if (ret < 0)
		return err_set_errno(err, ret, "cannot keep the passphrase");
	ret = blk_unlock(d->blk, &key, err);
	key_wipe(&key);
	return ret;
}

int vm_unlock(struct vm *vm, const char *image, const char *passphrase, struct error *err)
{
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		AUTO_FREE char *text = locked_image(d);

		if (text && !strcmp(text, image))
			return unlock(d, passphrase, err);
	}
	return 0;
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
