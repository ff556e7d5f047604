/* -device: from the text of its properties to a device on the machine. */
#include "block/blk.h"
#include "devices/device.h"
#include "devices/net/net.h"
#include "devices/pci.h"
#include "devices/virtio/serial.h"
#include "vmm/vm.h"

#include <errno.h>

int vm_add_device(struct vm *vm, struct device **out, const char *driver,
		  const struct device_args *args, struct error *err)
{
	const struct device_class *cls = device_class_find(driver);

	if (!cls)
		return err_set(err, -ENOENT, "'%s' is not a valid device model name", driver);
	return device_new(out, &vm->machine, cls, args, err);
}

static const struct prop *find_prop(const struct device_class *cls, const char *name)
{
	for (const struct prop *p = cls->props; p && p->name; p++)
		if (!strcmp(p->name, name))
			return p;
	if (cls->bus == DEVICE_ON_PCI)
		for (const struct prop *p = pci_common_props; p->name; p++)
			if (!strcmp(p->name, name))
				return p;
	return NULL;
}

u32 vm_device_u32(const struct device *dev, const char *name)
{
	const struct prop *p = find_prop(dev->cls, name);

	if (!p || p->kind != PROP_KIND_U32)
		return UINT32_MAX;
	return *(const u32 *)((const char *)dev + p->offset);
}

static int find_blk(struct vm *vm, const char *id, struct prop_value *v, struct error *err)
{
	struct drive *d = vm_find_drive(vm, id);

	if (!d)
		return err_set(err, -ENOENT, "Property 'drive' can't find value '%s'", id);
	if (d->device || d->config->interface != DRIVE_IF_NONE || d->taken)
		return err_set(err, -EBUSY, "Drive '%s' is already in use by another device", id);
	d->taken = true;
	v->ptr = d->blk;
	return 0;
}

static int find_chardev(struct vm *vm, const char *id, struct prop_value *v, struct error *err)
{
	struct stream *s = vm_find_stream(vm, id);

	if (!s)
		return err_set(err, -ENOENT, "Property 'chardev' can't find value '%s'", id);
	v->ptr = s->chardev;
	return 0;
}

static int find_netdev(struct vm *vm, const struct device_class *cls, const char *id,
		       struct prop_value *v, struct error *err)
{
	struct net_end *end = net_find(vm->machine.net, id);

	if (!end || end->is_nic)
		return err_set(err, -ENOENT, "Property '%s.netdev' can't find value '%s'",
			       cls->name, id);
	v->ptr = end; /* whether it is free is for the card to say */
	return 0;
}

/* Where the object of that id has its bytes from. */
static int find_rng(struct vm *vm, const char *id, struct prop_value *v, struct error *err)
{
	list_for_each (pos, &vm->config->rngs) {
		const struct frontend_config *r = list_entry(pos, struct frontend_config, link);

		if (!strcmp(r->source, id)) {
			v->text = r->spec;
			return 0;
		}
	}
	return err_set(err, -ENOENT, "Property 'rng' can't find value '%s'", id);
}

static bool is_nic(const struct device_class *cls)
{
	const struct prop *p = find_prop(cls, "netdev");

	return p && p->kind == PROP_KIND_NETDEV;
}

static int convert(struct vm *vm, const struct device_class *cls, const struct opt *opt,
		   struct prop_value *v, struct error *err)
{
	const struct prop *p = find_prop(cls, opt->name);

	if (!p || p->kind == PROP_KIND_PTR)
		return err_set(err, -EINVAL, "Property '%s.%s' not found", cls->name, opt->name);
	v->name = opt->name;
	v->text = opt->value;
	if (p->kind == PROP_KIND_BLK)
		return find_blk(vm, opt->value, v, err);
	if (p->kind == PROP_KIND_CHARDEV)
		return find_chardev(vm, opt->value, v, err);
	if (p->kind == PROP_KIND_RNG)
		return find_rng(vm, opt->value, v, err);
	if (p->kind == PROP_KIND_NETDEV)
		return find_netdev(vm, cls, opt->value, v, err);
	return 0;
}

/* What -drive says of a disk that -device shows and does not name the serial number of. */
static const char *serial_of_drive(struct vm *vm, const struct device_class *cls,
				   const struct opts *props)
{
	const char *id = opts_get(props, "drive");
	struct drive *d = id && find_prop(cls, "serial") ? vm_find_drive(vm, id) : NULL;

	return d && !opts_has(props, "serial") ? d->config->serial : NULL;
}

/* The bus of that controller, by its id, or of the last one there is. */
static struct device *serial_bus(struct vm *vm, const char *bus)
{
	struct device *found = NULL;

	list_for_each (pos, &vm->machine.devices) {
		struct device *dev = list_entry(pos, struct device, link);
		size_t len = strlen(dev->id);
		bool named = !bus || !strcmp(bus, "virtio-serial-bus.0") ||
			     (!strncmp(bus, dev->id, len) && !strcmp(bus + len, ".0"));

		if (dev->cls == &virtio_serial_class && named)
			found = dev;
	}
	return found;
}

static struct device *parent_for(struct vm *vm, const struct device_class *cls, const char *bus)
{
	switch (cls->bus) {
	case DEVICE_ON_VIRTIO_SERIAL: return serial_bus(vm, bus);
	case DEVICE_ON_PCI: return vm->host_bridge;
	case DEVICE_ON_IDE: return vm->ide;
	default: return NULL;
	}
}

/* bus=pci.0 is where they go anyway. */
static bool is_only_bus(const struct device_class *cls, const struct opt *opt)
{
	if (strcmp(opt->name, "bus"))
		return false;
	if (cls->bus == DEVICE_ON_VIRTIO_SERIAL)
		return true; /* parent_for looks at it */
	return (cls->bus == DEVICE_ON_PCI && !strcmp(opt->value, "pci.0")) ||
	       (cls->bus == DEVICE_ON_ISA && !strcmp(opt->value, "isa.0"));
}

static int check_bootindex(struct vm *vm, const struct device *dev, struct error *err)
{
	u32 index = vm_device_u32(dev, "bootindex");

	list_for_each (pos, &vm->machine.devices) {
		const struct device *other = list_entry(pos, struct device, link);

		if (other != dev && index != UINT32_MAX &&
		    vm_device_u32(other, "bootindex") == index)
			return err_set(err, -EBUSY, "The bootindex %u has already been used",
				       index);
	}
	return 0;
}

static int add_user_device(struct vm *vm, const struct device_config *c, struct error *err)
{
	const struct device_class *cls = device_class_find(c->driver);
	AUTO_FREE struct prop_value *values = xnew_n(struct prop_value, c->props.n + 2);
	AUTO_FREE char *rom = NULL;
	struct device_args args = {.id = c->id, .values = values};
	const char *serial;
	struct device *dev;
	int ret;

	if (!cls || !cls->user_creatable)
		return err_set(err, -ENOENT, "'%s' is not a valid device model name", c->driver);
	for (unsigned i = 0; i < c->props.n; i++) {
		if (is_only_bus(cls, &c->props.v[i]))
			continue;
		ret = convert(vm, cls, &c->props.v[i], &values[args.n_values++], err);
		if (ret < 0)
			return ret;
	}
	serial = serial_of_drive(vm, cls, &c->props);
	if (serial)
		values[args.n_values++] = (struct prop_value){.name = "serial", .text = serial};
	if (is_nic(cls) && !opts_has(&c->props, "romfile"))
		rom = vm_nic_rom(vm, cls->name);
	if (rom)
		values[args.n_values++] = (struct prop_value){.name = "romfile", .text = rom};
	args.parent = parent_for(vm, cls, opts_get(&c->props, "bus"));
	ret = device_new(&dev, &vm->machine, cls, &args, err);
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < args.n_values; i++)
		if (values[i].ptr && !strcmp(values[i].name, "drive"))
			vm_find_drive(vm, values[i].text)->device = dev;
	return check_bootindex(vm, dev, err);
}

int vm_add_user_devices(struct vm *vm, struct error *err)
{
	list_for_each (pos, &vm->config->devices) {
		struct device_config *c = list_entry(pos, struct device_config, link);

		if (add_user_device(vm, c, err) < 0)
			return err_prefix(err, "%s", c->source);
	}
	return 0;
}
