/* Drives of a machine: opening their images, and the devices that show them. */
#include "block/blk_control.h"
#include "block/unlock.h"
#include "devices/device.h"
#include "devices/ide/ide.h"
#include "vmm/unlock.h"
#include "vmm/control_drives.h"
#include "vmm/vm.h"

#include <errno.h>

/* The -object of that name, or what a drive before this one has made. */
static struct throttle_group *find_group(struct vm *vm, const char *name)
{
	struct throttle_group *group = config_find_throttle(vm->config, name);

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (!group && d->limits && !strcmp(throttle_group_name(d->limits), name))
			group = d->limits;
	}
	return group;
}

/* The drive's group, there already or a new one; NULL: no limits. */
static struct throttle_group *limits_for(struct vm *vm, const struct drive_config *c)
{
	struct throttle_group *group = c->limits_group ? find_group(vm, c->limits_group) : NULL;

	if (group) {
		if (throttle_limits_any(&c->limits))
			throttle_set(group, &c->limits);
		return throttle_group_ref(group);
	}
	if (!c->limits_group && !throttle_limits_any(&c->limits))
		return NULL;
	return throttle_group_new(c->limits_group ? c->limits_group : c->id, &c->limits);
}

static int open_drive(struct vm *vm, const struct drive_config *c, struct error *err)
{
	const struct unlock_policy unlock = {.when = UNLOCK_LATER, .secrets = &vm->config->secrets};
	struct blk_options options = {
		.id = c->id,
		.file = c->file,
		.format = c->format,
		.cache = c->cache,
		.aio = c->aio,
		.readonly = c->readonly,
		.snapshot = c->snapshot,
		.discard_unmap = c->discard_unmap,
		.copy_on_read = c->copy_on_read,
		.share_rw = c->share_rw,
		.werror = c->werror,
		.rerror = c->rerror,
		.image = c->image.n || (c->format && !c->cdrom && !c->file) ? &c->image : NULL,
		.unlock = &unlock,
	};
	struct drive *d;
	struct blk *blk;

	options.limits = limits_for(vm, c);
	if (blk_open(&blk, &options, err) < 0) {
		throttle_group_put(options.limits);
		return err_prefix(err, "%s", c->source);
	}
	d = xnew(struct drive);
	d->limits = options.limits;
	d->config = c;
	d->blk = blk;
	list_append(&vm->drives, &d->link);
	if (blk_is_encrypted(blk))
		vm_hide_memory();
	return 0;
}

int vm_open_drives(struct vm *vm, struct error *err)
{
	int ret = 0;

	list_for_each (pos, &vm->config->drives) {
		ret = open_drive(vm, list_entry(pos, struct drive_config, link), err);
		if (ret < 0)
			break;
	}
	return ret;
}

void vm_close_drives(struct vm *vm)
{
	struct list *item;

	while ((item = list_pop(&vm->drives))) {
		struct drive *d = list_entry(item, struct drive, link);

		blk_close(d->blk);
		throttle_group_put(d->limits);
		free(d);
	}
}

bool vm_has_drive(struct vm *vm, const char *id)
{
	return vm_find_drive(vm, id) != NULL;
}

/* By its id, the name of its first node, or the device that shows it. */
struct drive *vm_find_drive(struct vm *vm, const char *id)
{
	struct drive *other = NULL;

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		const char *node = opts_get(&d->config->image, "node-name");

		if (!strcmp(d->config->id, id))
			return d;
		if ((node && !strcmp(node, id)) || (d->device && !strcmp(d->device->id, id)))
			other = d;
	}
	return other;
}

static int attach_ide(struct vm *vm, struct drive *d, struct error *err)
{
	const struct drive_config *c = d->config;
	struct ide_place place = {.channel = (unsigned)c->bus,
				  .unit = (unsigned)c->unit,
				  .cdrom = c->cdrom,
				  .serial = c->serial,
				  .bootindex = -1};

	return piix_ide_attach(vm->ide, &place, d->blk, &d->device, err);
}

static int attach_virtio(struct vm *vm, struct drive *d, struct error *err)
{
	struct prop_value values[] = {
		{.name = "drive", .ptr = d->blk},
		{.name = "serial", .text = d->config->serial},
	};
	struct device_args args = {
		.parent = vm->host_bridge, .values = values, .n_values = d->config->serial ? 2 : 1};

	return vm_add_device(vm, &d->device, "virtio-blk-pci", &args, err);
}

int vm_attach_drives(struct vm *vm, struct error *err)
{
	int ret = 0;

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		switch (d->config->interface) {
		case DRIVE_IF_IDE: ret = attach_ide(vm, d, err); break;
		case DRIVE_IF_VIRTIO: ret = attach_virtio(vm, d, err); break;
		case DRIVE_IF_NONE: break; /* -device names it */
		}
		if (ret < 0)
			return err_prefix(err, "%s", d->config->source);
	}
	return 0;
}
