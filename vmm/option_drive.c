/* Options that name disk images: -drive -hda -cdrom -snapshot. */
#include "base/log.h"
#include "vmm/options.h"

#include <errno.h>
#include <stdio.h>

static const char *const if_names[] = {"ide", "virtio", "none", NULL};
/* Those that other machines have. */
static const char *const other_ifs[] = {"scsi", "floppy", "pflash", "mtd", "sd", "xen", NULL};

static struct drive_config *add_drive(struct config *c, const char *source)
{
	struct drive_config *d = xnew(struct drive_config);

	d->source = xstrdup(source);
	d->bus = d->unit = DRIVE_NO_PLACE;
	list_append(&c->drives, &d->link);
	return d;
}

/* share-rw=on of the device that will show it: the image is opened so.  A drive without a
 * medium waits for a disc. */
void config_share_drives(struct config *c)
{
	list_for_each (pos, &c->devices) {
		const struct opts *o = &list_entry(pos, struct device_config, link)->props;
		const char *drive = opts_get(o, "drive");
		struct drive_config *d = drive ? config_find_drive(c, drive) : NULL;
		struct error err;

		if (d)
			(void)opts_get_bool(o, "share-rw", &d->share_rw, &err);
		if (d && !d->file && !d->format && !d->image.n)
			d->cdrom = d->readonly = true;
	}
}

int option_hard_disk(struct config *c, const struct option_use *use, struct error *err)
{
	struct drive_config *d = add_drive(c, use->source);
	int index = use->option->name[2] - 'a';

	d->file = xstrdup(use->text);
	d->bus = index / IDE_UNITS;
	d->unit = index % IDE_UNITS;
	return 0;
}

int option_cdrom(struct config *c, const struct option_use *use, struct error *err)
{
	struct drive_config *d = add_drive(c, use->source);

	d->file = *use->text ? xstrdup(use->text) : NULL;
	d->bus = 1;
	d->unit = 0;
	d->cdrom = d->readonly = true;
	return 0;
}

int option_snapshot(struct config *c, const struct option_use *use, struct error *err)
{
	c->snapshot = true;
	return 0;
}

/* index=, or bus= and unit=; what is not given is found later. */
static int drive_place(struct drive_config *d, const struct opts *o, struct error *err)
{
	u32 index = UINT32_MAX, bus = UINT32_MAX, unit = UINT32_MAX;
	u32 units = d->interface == DRIVE_IF_IDE ? IDE_UNITS : UINT16_MAX;
	int ret = opts_get_u32(o, "index", &index, err);

	if (ret == 0)
		ret = opts_get_u32(o, "bus", &bus, err);
	if (ret == 0)
		ret = opts_get_u32(o, "unit", &unit, err);
	if (ret < 0)
		return ret;
	if (index != UINT32_MAX) {
		if (bus != UINT32_MAX || unit != UINT32_MAX)
			return err_set(err, -EINVAL, "index cannot be used with bus and unit");
		bus = index / units;
		unit = index % units;
	}
	if (unit != UINT32_MAX && unit >= units)
		return err_set(err, -EINVAL, "unit %u too big (max is %u)", unit, units - 1);
	if (bus != UINT32_MAX && bus >= (d->interface == DRIVE_IF_IDE ? IDE_BUSES : 1))
		return err_set(err, -EINVAL, "machine type does not support if=%s,bus=%u,unit=%u",
			       if_names[d->interface], bus, unit == UINT32_MAX ? 0 : unit);
	d->bus = bus == UINT32_MAX ? DRIVE_NO_PLACE : (int)bus;
	d->unit = unit == UINT32_MAX ? DRIVE_NO_PLACE : (int)unit;
	return 0;
}

/* Keys that have one of a few words. */
static const struct choice {
	const char *key, *words[10], *before, *after; /* message around the bad word */
} choices[] = {
	{"if",
	 {"ide", "virtio", "none", "scsi", "floppy", "pflash", "mtd", "sd", "xen"},
	 "unsupported bus type '",
	 "'"},
	{"media", {"disk", "cdrom"}, "'", "' invalid media"},
	{"cache",
	 {"writeback", "none", "writethrough", "directsync", "unsafe", "off"},
	 NULL,
	 "invalid cache option"},
	{"aio", {"threads", "native", "io_uring"}, NULL, "invalid aio option"},
	{"discard", {"ignore", "off", "unmap", "on"}, NULL, "Invalid discard option"},
	{"detect-zeroes", {"off", "on", "unmap"}, "invalid parameter value: ", ""},
	{"werror", {"report", "ignore", "stop", "enospc"}, "'", "' invalid write error action"},
	{"rerror", {"report", "ignore", "stop"}, "'", "' invalid read error action"},
};

static int check_aio(const struct opts *o, struct error *err)
{
	static const char *const direct[] = {"none", "directsync", "off", NULL};
	const char *aio = opts_get(o, "aio"), *cache = opts_get(o, "cache");
	bool on = cache && parse_choice(cache, direct) >= 0;

	if (opts_get_bool(o, "cache.direct", &on, err) < 0)
		return err->code;
	if (aio && !strcmp(aio, "native") && !on)
		return err_set(err, -EINVAL,
			       "aio=native was specified, but it requires cache.direct=on, which "
			       "was not specified.");
	return 0;
}

static int check_choices(const struct opts *o, struct error *err)
{
	const char *value;

	for (unsigned i = 0; i < ARRAY_LEN(choices); i++) {
		const struct choice *c = &choices[i];

		value = opts_get(o, c->key);
		if (value && parse_choice(value, c->words) < 0)
			return err_set(err, -EINVAL, "%s%s%s", c->before ? c->before : "",
				       c->before ? value : "", c->after);
	}
	value = opts_get(o, "if");
	if (value && parse_choice(value, other_ifs) >= 0)
		return err_set(err, -EINVAL, "machine type does not support if=%s,bus=0,unit=0",
			       value);
	if (opts_has(o, "driver") && opts_has(o, "format"))
		return err_set(err, -EINVAL, "Cannot specify both 'driver' and 'format'");
	return check_aio(o, err);
}

static bool is_word(const struct opts *o, const char *name, const char *word)
{
	const char *value = opts_get(o, name);

	return value && !strcmp(value, word);
}

static int drive_flags(struct config *c, struct drive_config *d, const struct opts *o,
		       struct error *err)
{
	int ret = opts_get_bool(o, "readonly", &d->readonly, err);

	if (ret == 0)
		ret = opts_get_bool(o, "read-only", &d->readonly, err);
	d->snapshot = c->snapshot;
	if (ret == 0)
		ret = opts_get_bool(o, "snapshot", &d->snapshot, err);
	d->snapshot_given = opts_has(o, "snapshot");
	if (ret < 0)
		return ret;
	d->cdrom = is_word(o, "media", "cdrom");
	d->readonly |= d->cdrom;
	ret = opts_get_bool(o, "copy-on-read", &d->copy_on_read, err);
	if (ret == 0 && d->copy_on_read && d->readonly)
		log_warn("%s: disabling copy-on-read on read-only drive", d->source);
	d->discard_unmap = is_word(o, "discard", "unmap") || is_word(o, "discard", "on");
	return ret;
}

/* What is not the drive's is the image's; its driver says what there is. */
static void image_options(struct drive_config *d, const struct opts *o)
{
	static const char *const own[] = {"file",     "if",	  "index",	  "bus",
					  "unit",     "media",	  "format",	  "driver",
					  "cache",    "aio",	  "serial",	  "id",
					  "readonly", "snapshot", "read-only",	  "discard",
					  "werror",   "rerror",	  "copy-on-read", NULL};

	for (unsigned i = 0; i < o->n; i++) {
		const struct opt *opt = &o->v[i];

		if (parse_choice(opt->name, own) < 0 &&
		    !throttle_is_option(opt->name, THROTTLE_DRIVE) &&
		    !(opt->bare && !strncmp(opt->name, "no", 2) &&
		      parse_choice(opt->name + 2, own) >= 0))
			opts_add(&d->image, opt->name, opt->value, opt->bare);
	}
}

static bool names_file(const struct opts *image)
{
	return opts_has(image, "file.filename") || opts_has(image, "file.driver");
}

static int format_help(struct config *c)
{
	printf("Supported formats: file host_device luks nbd null-aio null-co qcow2 raw\n");
	c->writes_nothing = true;
	return 0;
}

int option_drive(struct config *c, const struct option_use *use, struct error *err)
{
	const struct opts *o = use->opts;
	const char *interface = opts_get(o, "if"), *id = opts_get(o, "id");
	struct drive_config *d;
	int ret;

	if (is_word(o, "format", "help") || is_word(o, "format", "?"))
		return format_help(c);
	ret = check_choices(o, err);
	if (ret < 0)
		return ret;
	if (id && !is_identifier(id))
		return err_set(err, -EINVAL,
			       "Parameter 'id' expects an identifier (letters, digits, '-', '.', "
			       "'_', starting with a letter)");
	if (id && config_find_drive(c, id))
		return err_set(err, -EINVAL, "Duplicate ID '%s' for drive", id);
	d = add_drive(c, use->source);
	if (interface)
		d->interface = (enum drive_if)parse_choice(interface, if_names);
	opts_get_str(o, "id", &d->id);
	opts_get_str(o, "file", &d->file);
	opts_get_str(o, "format", &d->format);
	opts_get_str(o, "driver", &d->format);
	opts_get_str(o, "cache", &d->cache);
	opts_get_str(o, "aio", &d->aio);
	opts_get_str(o, "serial", &d->serial);
	opts_get_str(o, "werror", &d->werror);
	opts_get_str(o, "rerror", &d->rerror);
	image_options(d, o);
	opts_get_str(o, "group", &d->limits_group);
	opts_get_str(o, "throttling.group", &d->limits_group);
	ret = throttle_limits_parse(&d->limits, o, THROTTLE_DRIVE, err);
	if (ret == 0)
		ret = drive_flags(c, d, o, err);
	if (ret == 0)
		ret = drive_place(d, o, err);
	if (ret == 0 && !d->file && !d->cdrom && !d->format && !names_file(&d->image) &&
	    (d->interface != DRIVE_IF_NONE || d->image.n))
		ret = err_set(err, -EINVAL, "Must specify either driver or file");
	return ret;
}
