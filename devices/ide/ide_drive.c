/* Devices ide-hd and ide-cd: a drive, its properties, and its place on a channel.
 *
 * The drive's registers are under the controller's lock, which is taken inside
 * the drive's own where the common code holds that (reset, state). */
#include "devices/disk.h"
#include "devices/ide/ata_int.h"
#include "devices/ide/ide.h"
#include "devices/ide/piix_ide.h"

#include <errno.h>
#include <stdio.h>

#define UNIT_AUTO UINT32_MAX

struct ide_drive {
	struct device dev;
	struct ata_drive ata;
	/* [const] properties */
	struct disk_props disk;
	char *bus, *model, *version;
	u32 unit;
};

static struct ide_drive *drive_of(struct device *dev)
{
	assert(dev->cls == &ide_hd_class || dev->cls == &ide_cd_class);
	return container_of(dev, struct ide_drive, dev);
}

static struct mutex *controller_lock(struct ide_drive *d)
{
	return &d->dev.parent->lock;
}

/* Where the properties want it, or the first free place that fits them. */
static int choose_place(struct ide_drive *d, unsigned *channel, unsigned *unit, struct error *err)
{
	struct piix_ide *ide = piix_ide_of(d->dev.parent);
	bool any_channel = !d->bus;

	if (d->bus && strcmp(d->bus, "ide.0") != 0 && strcmp(d->bus, "ide.1") != 0)
		return err_set(err, -EINVAL, "%s: bus is '%s', expected ide.0 or ide.1", d->dev.id,
			       d->bus);
	if (d->unit != UNIT_AUTO && d->unit > 1)
		return err_set(err, -EINVAL, "%s: unit is %u, expected 0 or 1", d->dev.id, d->unit);
	for (unsigned i = 0; i < 4; i++) {
		*channel = i / 2;
		*unit = i % 2;
		if (!any_channel && *channel != (unsigned)(d->bus[4] - '0'))
			continue;
		if (d->unit != UNIT_AUTO && d->unit != *unit)
			continue;
		if (!ide->channels[*channel].ata.drives[*unit])
			return 0;
	}
	return err_set(err, -EBUSY, "%s: no free place on the IDE channels", d->dev.id);
}

static int set_string(struct ide_drive *d, char *to, size_t room, const char *name,
		      const char *from, struct error *err)
{
	if (strlen(from) >= room)
		return err_set(err, -EINVAL, "%s: %s '%s' is too long, expected up to %zu",
			       d->dev.id, name, from, room - 1);
	strcpy(to, from);
	return 0;
}

static int set_names(struct ide_drive *d, unsigned place, struct error *err)
{
	char serial[21];

	snprintf(serial, sizeof(serial), "CV%05u", place + 1);
	if (set_string(d, d->ata.serial, sizeof(d->ata.serial), "serial",
		       d->disk.serial ? d->disk.serial : serial, err) < 0 ||
	    set_string(d, d->ata.model, sizeof(d->ata.model), "model", d->model, err) < 0 ||
	    set_string(d, d->ata.version, sizeof(d->ata.version), "ver", d->version, err) < 0)
		return err->code;
	return 0;
}

static int drive_init(struct ide_drive *d, enum ata_kind kind, struct error *err)
{
	unsigned channel, unit;
	int ret;

	if (!d->dev.parent || d->dev.parent->cls != &piix_ide_class)
		return err_set(err, -EINVAL, "%s: there is no IDE controller", d->dev.id);
	ret = disk_props_apply(&d->disk, &d->dev, err);
	if (ret < 0)
		return ret;
	if (d->disk.logical_bytes != ATA_SECTOR)
		return err_set(err, -EINVAL, "logical_block_size must be 512 for IDE");
	if (strcmp(d->disk.write_cache, "auto"))
		blk_set_write_cache(d->disk.blk, !strcmp(d->disk.write_cache, "on"));
	if (kind == ATA_DISK && !blk_has_medium(d->disk.blk))
		return err_set(err, -ENOMEDIUM, "Device needs media, but drive is empty");
	if (kind == ATA_DISK && blk_is_readonly(d->disk.blk))
		return err_set(err, -EROFS, "Block node is read-only");
	if (kind == ATA_DISK && blk_bytes(d->disk.blk) < ATA_SECTOR)
		return err_set(err, -EINVAL, "%s: '%s' is empty, a disk has at least a sector",
			       d->dev.id, blk_id(d->disk.blk));
	ret = choose_place(d, &channel, &unit, err);
	if (ret < 0)
		return ret;
	ret = set_names(d, channel * 2 + unit, err);
	if (ret < 0)
		return ret;
	d->ata.kind = kind;
	d->ata.physical_bytes = d->disk.physical_bytes;
	d->ata.blk = d->disk.blk;
	ata_drive_init(&d->ata);
	mutex_lock(controller_lock(d));
	ata_attach(&piix_ide_of(d->dev.parent)->channels[channel].ata, unit, &d->ata);
	mutex_unlock(controller_lock(d));
	blk_watch(d->disk.blk, &d->ata.watcher);
	return 0;
}

static int hd_init(struct device *dev, struct error *err)
{
	return drive_init(drive_of(dev), ATA_DISK, err);
}

static int cd_init(struct device *dev, struct error *err)
{
	return drive_init(drive_of(dev), ATA_CDROM, err);
}

static void drive_fini(struct device *dev)
{
	struct ide_drive *d = drive_of(dev);

	blk_unwatch(&d->ata.watcher);
	LOCK_SCOPE(controller_lock(d));
	ata_detach(&d->ata);
}

/* A command under way goes with the drive's state, on whichever drive it runs. */
static void drive_reset(struct device *dev)
{
	struct ide_drive *d = drive_of(dev);
	LOCK_SCOPE(controller_lock(d));

	ata_drive_reset(&d->ata);
	ata_channel_reset(d->ata.channel);
}

static void drive_pause(struct device *dev)
{
	ata_channel_pause(drive_of(dev)->ata.channel);
}

static void drive_resume(struct device *dev)
{
	ata_channel_resume(drive_of(dev)->ata.channel);
}

static void drive_post_load(struct device *dev)
{
	struct ide_drive *d = drive_of(dev);
	LOCK_SCOPE(controller_lock(d));

	ata_drive_post_load(&d->ata);
}

static const struct state_field drive_state[] = {
	STATE_STRUCT(struct ide_drive, ata, ata_drive_state),
	STATE_END,
};

static int drive_check(const void *loaded, struct error *err)
{
	const struct ide_drive *d = loaded;

	if (ata_drive_check(&d->ata, err) < 0)
		return err_prefix(err, "ide drive");
	return 0;
}

int piix_ide_attach(struct device *ide, const struct ide_place *place, struct blk *blk,
		    struct device **out, struct error *err)
{
	char id[32], bus[8], unit[12], bootindex[12];
	struct prop_value values[5] = {
		{"drive", NULL, blk},
		{"bus", bus, NULL},
		{"unit", unit, NULL},
		{"bootindex", bootindex, NULL},
		{"serial", place->serial, NULL},
	};
	const struct device_args args = {
		.id = id,
		.parent = ide,
		.values = values,
		.n_values = place->serial ? 5 : 4,
	};

	assert(place->channel < 2 && place->unit < 2);
	snprintf(id, sizeof(id), "ide%u-%s%u", place->channel, place->cdrom ? "cd" : "hd",
		 place->unit);
	snprintf(bus, sizeof(bus), "ide.%u", place->channel);
	snprintf(unit, sizeof(unit), "%u", place->unit);
	snprintf(bootindex, sizeof(bootindex), "%u", (u32)place->bootindex);
	return device_new(out, ide->machine, place->cdrom ? &ide_cd_class : &ide_hd_class, &args,
			  err);
}

bool ide_drive_place(const struct device *dev, unsigned *channel, unsigned *unit)
{
	const struct ide_drive *d = (const struct ide_drive *)dev;
	const struct piix_ide *ide;

	if (dev->cls != &ide_hd_class && dev->cls != &ide_cd_class)
		return false;
	ide = container_of(dev->parent, struct piix_ide, pci.dev);
	*channel = d->ata.channel == &ide->channels[1].ata;
	*unit = d->ata.channel->drives[1] == &d->ata;
	return true;
}

bool ide_cd_tray(struct device *dev, bool *open, bool *locked)
{
	struct ide_drive *d;

	if (dev->cls != &ide_cd_class)
		return false;
	d = drive_of(dev);
	LOCK_SCOPE(controller_lock(d));
	*open = d->ata.tray_open;
	*locked = d->ata.locked;
	return true;
}

void ide_cd_open_tray(struct device *dev)
{
	struct ide_drive *d = drive_of(dev);
	LOCK_SCOPE(controller_lock(d));

	atapi_tray_opened(&d->ata);
}

void ide_cd_ask_for_eject(struct device *dev)
{
	struct ide_drive *d = drive_of(dev);
	LOCK_SCOPE(controller_lock(d));

	atapi_eject_asked(&d->ata);
}

#define DRIVE_PROPS(model_text)                                                                    \
	DISK_PROPS(struct ide_drive, disk, "512"),                                                 \
		PROP(struct ide_drive, bus, "bus", PROP_KIND_STR, NULL, "ide.0 or ide.1"),         \
		PROP(struct ide_drive, unit, "unit", PROP_KIND_U32, "0xffffffff", "0 or 1"),       \
		PROP(struct ide_drive, model, "model", PROP_KIND_STR, model_text, "model name"),   \
		PROP(struct ide_drive, version, "ver", PROP_KIND_STR, COWVM_VERSION, "firmware"),  \
		PROP_END

static const struct prop hd_props[] = {DRIVE_PROPS("COWVM HARDDISK")};
static const struct prop cd_props[] = {DRIVE_PROPS("COWVM DVD-ROM")};

const struct device_class ide_hd_class = {
	.name = "ide-hd",
	.help = "IDE hard disk",
	.size = sizeof(struct ide_drive),
	.bus = DEVICE_ON_IDE,
	.user_creatable = true,
	.props = hd_props,
	.init = hd_init,
	.reset = drive_reset,
	.fini = drive_fini,
	.state = drive_state,
	.state_check = drive_check,
	.post_load = drive_post_load,
	.pause = drive_pause,
	.resume = drive_resume,
};

const struct device_class ide_cd_class = {
	.name = "ide-cd",
	.help = "IDE CD/DVD-ROM drive",
	.size = sizeof(struct ide_drive),
	.bus = DEVICE_ON_IDE,
	.user_creatable = true,
	.props = cd_props,
	.init = cd_init,
	.reset = drive_reset,
	.fini = drive_fini,
	.state = drive_state,
	.state_check = drive_check,
	.post_load = drive_post_load,
	.pause = drive_pause,
	.resume = drive_resume,
};
