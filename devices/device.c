/* Devices: making, properties, reset, saved state; see device.h.
 *
 * Thread: control, but for dev_guest_error (whoever holds the device's lock).
 * Invariant: every device on machine->devices has been initialised and reset. */
#include "devices/device.h"

#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define GUEST_ERROR_LINES 5 /* of one device; the rest is only counted */

/* Fixed registers win over what a guest lays over them with a BAR (negative ones). */
#define FIXED_PRIORITY 0

/* --- properties --------------------------------------------------------------- */

static const struct prop no_props[] = {PROP_END};

static const struct prop *bus_props(const struct device_class *cls)
{
	return cls->bus == DEVICE_ON_PCI ? pci_common_props : no_props;
}

static const struct prop *find_prop(const struct device_class *cls, const char *name)
{
	const struct prop *tables[] = {cls->props ? cls->props : no_props, bus_props(cls)};

	for (unsigned i = 0; i < ARRAY_LEN(tables); i++)
		for (const struct prop *p = tables[i]; p->name; p++)
			if (!strcmp(p->name, name))
				return p;
	return NULL;
}

static void *member_of(struct device *dev, const struct prop *p)
{
	return (char *)dev + p->offset;
}

/* Size suffixes count in powers of 1024, as everywhere on the command line. */
static bool parse_number(const char *text, u64 max, u64 *out)
{
	static const char suffixes[] = "bkmgt";
	char *end;
	u64 value, unit = 1;
	const char *suffix;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text)
		return false;
	if (*end) {
		suffix = strchr(suffixes, *end | 0x20);
		if (!suffix || !*suffix || end[1])
			return false;
		unit <<= 10 * (suffix - suffixes);
	}
	return mul_ok(value, unit, out) && *out <= max;
}

static bool parse_bool(const char *text, bool *out)
{
	static const char *const yes[] = {"on", "yes", "true", "y"};
	static const char *const no[] = {"off", "no", "false", "n"};

	for (unsigned i = 0; i < ARRAY_LEN(yes); i++) {
		if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
			*out = !strcmp(text, yes[i]);
			return true;
		}
	}
	return false;
}

static bool parse_devfn(const char *text, u32 *out)
{
	char *end;
	unsigned long slot, function = 0;

	if (!strcmp(text, "auto")) {
		*out = UINT32_MAX;
		return true;
	}
	errno = 0;
	slot = strtoul(text, &end, 16);
	if (end == text || errno || slot > 31)
		return false;
	if (*end == '.') {
		const char *from = end + 1;

		function = strtoul(from, &end, 16);
		if (end == from || errno || function > 7)
			return false;
	}
	*out = (u32)(slot << 3 | function);
	return !*end;
}

static const char *kind_text(enum prop_kind kind)
{
	static const char *const texts[] = {
		[PROP_KIND_U32] = "a number below 2^32",
		[PROP_KIND_U64] = "a number",
		[PROP_KIND_BOOL] = "on or off",
		[PROP_KIND_STR] = "a text",
		[PROP_KIND_DEVFN] = "SLOT or SLOT.FUNCTION",
		[PROP_KIND_BLK] = "the id of a drive",
		[PROP_KIND_CHARDEV] = "the id of a character device",
		[PROP_KIND_NETDEV] = "the id of a netdev",
		[PROP_KIND_RNG] = "the id of a source of entropy",
		[PROP_KIND_PTR] = "something of the program's own",
	};

	return texts[kind];
}

static bool set_text(struct device *dev, const struct prop *p, const char *text)
{
	char **string = member_of(dev, p);
	u64 number;

	switch (p->kind) {
	case PROP_KIND_U32:
		if (!parse_number(text, UINT32_MAX, &number))
			return false;
		*(u32 *)member_of(dev, p) = (u32)number;
		return true;
	case PROP_KIND_U64: return parse_number(text, UINT64_MAX, member_of(dev, p));
	case PROP_KIND_BOOL: return parse_bool(text, member_of(dev, p));
	case PROP_KIND_DEVFN: return parse_devfn(text, member_of(dev, p));
	case PROP_KIND_RNG:
	case PROP_KIND_STR:
		free(*string);
		*string = xstrdup(text);
		return true;
	default: return false; /* objects come as pointers: the caller looks ids up */
	}
}

static bool is_object(enum prop_kind kind)
{
	return kind == PROP_KIND_BLK || kind == PROP_KIND_CHARDEV || kind == PROP_KIND_NETDEV ||
	       kind == PROP_KIND_PTR;
}

static int set_value(struct device *dev, const struct prop_value *v, struct error *err)
{
	const struct prop *p = find_prop(dev->cls, v->name);

	if (!p)
		return err_set(err, -EINVAL, "device '%s' has no property '%s'", dev->cls->name,
			       v->name);
	if (is_object(p->kind) && v->ptr) {
		*(void **)member_of(dev, p) = v->ptr;
		return 0;
	}
	if (!v->text || !set_text(dev, p, v->text))
		return err_set(err, -EINVAL, "%s: property '%s' is '%s', expected %s",
			       dev->cls->name, v->name, v->text ? v->text : "", kind_text(p->kind));
	return 0;
}

static void set_defaults(struct device *dev, const struct prop *table)
{
	for (const struct prop *p = table; p->name; p++) {
		if (p->value) {
			bool ok = set_text(dev, p, p->value);

			assert(ok);
		}
	}
}

static void free_strings(struct device *dev, const struct prop *table)
{
	for (const struct prop *p = table; p->name; p++)
		if (p->kind == PROP_KIND_STR || p->kind == PROP_KIND_RNG)
			free(*(char **)member_of(dev, p));
}

static int set_values(struct device *dev, const struct device_args *args, struct error *err)
{
	int ret = 0;

	set_defaults(dev, bus_props(dev->cls));
	set_defaults(dev, dev->cls->props ? dev->cls->props : no_props);
	for (unsigned i = 0; i < args->n_values && ret == 0; i++)
		ret = set_value(dev, &args->values[i], err);
	return ret;
}

/* --- making ------------------------------------------------------------------- */

struct device *device_find(struct machine *m, const char *id)
{
	list_for_each (item, &m->devices) {
		struct device *dev = list_entry(item, struct device, link);

		if (!strcmp(dev->id, id))
			return dev;
	}
	return NULL;
}

static int choose_id(struct device *dev, const char *id, struct error *err)
{
	if (id) {
		if (!*id || strlen(id) >= sizeof(dev->id))
			return err_set(err, -EINVAL,
				       "device id '%s' has %zu characters, expected 1..%zu", id,
				       strlen(id), sizeof(dev->id) - 1);
		if (device_find(dev->machine, id))
			return err_set(err, -EEXIST, "Duplicate ID '%s' for device", id);
		strcpy(dev->id, id);
		return 0;
	}
	snprintf(dev->id, sizeof(dev->id), "%s", dev->cls->name);
	for (unsigned n = 1; device_find(dev->machine, dev->id); n++)
		snprintf(dev->id, sizeof(dev->id), "%.20s.%u", dev->cls->name, n);
	return 0;
}

static void destroy(struct device *dev)
{
	free_strings(dev, bus_props(dev->cls));
	free_strings(dev, dev->cls->props ? dev->cls->props : no_props);
	mutex_fini(&dev->lock);
	free(dev);
}

int device_new(struct device **out, struct machine *m, const struct device_class *cls,
	       const struct device_args *args, struct error *err)
{
	static const struct device_args none = {.id = NULL};
	struct device *dev = xalloc(cls->size);
	int ret;

	assert(cls->size >= sizeof(*dev) && cls->init && cls->reset && cls->state);
	if (!args)
		args = &none;
	if (!m->devices.next)
		list_init(&m->devices);
	dev->cls = cls;
	dev->machine = m;
	dev->parent = args->parent;
	mutex_init(&dev->lock);
	list_init(&dev->link);
	ret = choose_id(dev, args->id, err);
	if (ret == 0)
		ret = set_values(dev, args, err);
	if (ret == 0)
		ret = cls->init(dev, err);
	if (ret < 0) {
		destroy(dev);
		return ret;
	}
	dev->initialized = true;
	list_append(&m->devices, &dev->link);
	device_reset(dev);
	*out = dev;
	return 0;
}

void device_free(struct device *dev)
{
	if (!dev)
		return;
	assert(dev->initialized);
	if (dev->cls->fini)
		dev->cls->fini(dev);
	list_del(&dev->link);
	destroy(dev);
}

void device_reset(struct device *dev)
{
	LOCK_SCOPE(&dev->lock);

	dev->cls->reset(dev);
}

void dev_guest_error(struct device *dev, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	lock_assert(&dev->lock);
	if (++dev->guest_errors > GUEST_ERROR_LINES)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_warn("%s: %s%s", dev->id, text,
		 dev->guest_errors == GUEST_ERROR_LINES ? " (no more of these)" : "");
}

/* --- registers ---------------------------------------------------------------- */

static int map(struct device *dev, struct bus_region **out, struct bus *bus,
	       const struct bus_place *place, const struct bus_ops *ops, struct error *err)
{
	int ret = bus_map(bus, out, place, ops, dev, &dev->lock);

	if (ret < 0)
		return err_set_errno(err, ret, "%s: cannot map %llu registers at 0x%llx", dev->id,
				     (unsigned long long)place->bytes,
				     (unsigned long long)place->addr);
	return 0;
}

int dev_map_pio(struct device *dev, struct bus_region **out, u16 port, u16 ports,
		const struct bus_ops *ops, struct error *err)
{
	const struct bus_place place = {dev->id, port, ports, FIXED_PRIORITY};

	return map(dev, out, dev->machine->pio, &place, ops, err);
}

int dev_map_mmio(struct device *dev, struct bus_region **out, u64 gpa, u64 bytes,
		 const struct bus_ops *ops, struct error *err)
{
	const struct bus_place place = {dev->id, gpa, bytes, FIXED_PRIORITY};

	return map(dev, out, dev->machine->mmio, &place, ops, err);
}

/* --- state -------------------------------------------------------------------- */

void device_save(struct device *dev, struct state_buf *out)
{
	LOCK_SCOPE(&dev->lock);

	if (dev->cls->pre_save)
		dev->cls->pre_save(dev);
	state_save(out, dev->id, dev->cls->state, dev);
}

int device_load_copy(struct device *dev, struct state_buf *in, void **copy, struct error *err)
{
	void *loaded = xalloc(dev->cls->size);
	int ret = state_load(in, dev->id, dev->cls->state, loaded, err);

	if (ret == 0 && dev->cls->state_check)
		ret = dev->cls->state_check(loaded, err);
	if (ret < 0) {
		free(loaded);
		return ret;
	}
	*copy = loaded;
	return 0;
}

void device_load_apply(struct device *dev, void *copy)
{
	mutex_lock(&dev->lock);
	state_copy(dev->cls->state, dev, copy);
	if (dev->cls->post_load)
		dev->cls->post_load(dev);
	mutex_unlock(&dev->lock);
	free(copy);
}

int device_load(struct device *dev, struct state_buf *in, struct error *err)
{
	void *copy;
	int ret = device_load_copy(dev, in, &copy, err);

	if (ret == 0)
		device_load_apply(dev, copy);
	return ret;
}
