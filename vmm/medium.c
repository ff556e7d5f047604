/* Monitor commands about the medium of a drive and its size: change, eject,
 * block_resize.  Thread: control. */
#include "block/blk_control.h"
#include "devices/ide/ide.h"
#include "vmm/control_drives.h"
#include "vmm/vm.h"

#include <errno.h>

static int find_removable(struct vm *vm, const char *device, struct drive **out, struct error *err)
{
	struct drive *d = vm_find_drive(vm, device);
	bool open, locked;

	if (!d)
		return err_set(err, -ENODEV, "Device '%s' not found", device);
	/* What no device shows may be taken out, too. */
	if (d->device && !ide_cd_tray(d->device, &open, &locked))
		return err_set(err, -EINVAL, "Device '%s' is not removable", device);
	*out = d;
	return 0;
}

/* The guest may keep the tray shut; it is asked to let go, as by the button. */
static int open_tray(struct drive *d, bool force, struct error *err)
{
	bool open = false, locked = false;

	if (!d->device)
		return 0;
	ide_cd_tray(d->device, &open, &locked);
	if (!open && locked && !force) {
		ide_cd_ask_for_eject(d->device);
		return err_set(err, -EBUSY,
			       "Device '%s' is locked and force was not specified, wait for tray "
			       "to open and try again",
			       d->config->id);
	}
	ide_cd_open_tray(d->device);
	return 0;
}

int vm_eject(struct vm *vm, const char *device, bool force, struct error *err)
{
	struct drive *d = NULL;
	int ret = find_removable(vm, device, &d, err);

	if (ret == 0)
		ret = open_tray(d, force, err);
	return ret < 0 ? ret : blk_change_medium(d->blk, NULL, err);
}

static int check_mode(const char *mode, struct error *err)
{
	static const char *const modes[] = {"retain", "read-only", "read-write", NULL};
	int at = mode ? parse_choice(mode, modes) : 0;

	if (at < 0)
		return err_set(err, -EINVAL, "invalid parameter value: %s", mode);
	/* What sits in a CD drive is read-only whatever one says. */
	return at == 2 ? err_set(err, -EROFS, "Block node is read-only") : 0;
}

int vm_change(struct vm *vm, const struct vm_change *c, struct error *err)
{
	const struct blk_medium medium = {c->file, c->format};
	struct drive *d = NULL;
	bool open = false, locked = false;
	int ret = find_removable(vm, c->device, &d, err);

	if (ret == 0)
		ret = check_mode(c->mode, err);
	if (ret < 0)
		return ret;
	if (d->device)
		ide_cd_tray(d->device, &open, &locked);
	if (locked && !open && !c->force)
		return open_tray(d, false, err);
	return blk_change_medium(d->blk, &medium, err);
}

int vm_set_throttle(struct vm *vm, const char *device, const struct vm_throttle *t,
		    struct error *err)
{
	struct drive *d = vm_find_drive(vm, device);
	struct throttle_limits l = {0};
	int ret;

	if (!d)
		return err_set(err, -ENODEV, "Device '%s' not found", device);
	for (unsigned i = 0; i < 3; i++) {
		l.bps[i] = (struct throttle_limit){.avg = t->bps[i], .length = 1};
		l.iops[i] = (struct throttle_limit){.avg = t->iops[i], .length = 1};
	}
	ret = throttle_limits_check(&l, err);
	if (ret == 0)
		blk_set_limits(d->blk, &l);
	return ret;
}

int vm_block_resize(struct vm *vm, const char *device, u64 bytes, struct error *err)
{
	struct drive *d = vm_find_drive(vm, device);

	if (!d)
		return err_set(err, -ENODEV, "Cannot find device='%s' nor node-name=''", device);
	if (!blk_has_medium(d->blk))
		return err_set(err, -ENOMEDIUM, "Device '%s' has no medium", device);
	if (bytes % 512)
		return err_set(err, -EINVAL, "The new size must be a multiple of 512");
	if (blk_is_readonly(d->blk))
		return err_set(err, -EACCES, "Image is read-only");
	return blk_resize(d->blk, bytes, err);
}
