/* What -device help prints: the classes that a user may make, and properties. */
#include "devices/device.h"
#include "devices/pci.h"
#include "vmm/options.h"

#include <errno.h>

static const char *const bus_names[] = {[DEVICE_ON_BOARD] = "System",
					[DEVICE_ON_ISA] = "ISA",
					[DEVICE_ON_PCI] = "PCI",
					[DEVICE_ON_IDE] = "IDE",
					[DEVICE_ON_VIRTIO_SERIAL] = "virtio-serial-bus"};

static void print_class(FILE *to, const struct device_class *cls)
{
	fprintf(to, "name \"%s\", bus %s", cls->name, bus_names[cls->bus]);
	if (cls->help)
		fprintf(to, ", desc \"%s\"", cls->help);
	fprintf(to, "\n");
}

static const char *kind_name(enum prop_kind kind)
{
	static const char *const names[] = {
		[PROP_KIND_U32] = "uint32",  [PROP_KIND_U64] = "uint64",
		[PROP_KIND_BOOL] = "bool",   [PROP_KIND_STR] = "str",
		[PROP_KIND_BLK] = "str",     [PROP_KIND_CHARDEV] = "str",
		[PROP_KIND_DEVFN] = "int32", [PROP_KIND_NETDEV] = "str",
		[PROP_KIND_RNG] = "str"};

	return (unsigned)kind < ARRAY_LEN(names) ? names[kind] : NULL;
}

static void print_props(FILE *to, const struct prop *table)
{
	for (const struct prop *p = table; p && p->name; p++) {
		int len;

		if (p->kind == PROP_KIND_PTR)
			continue;
		len = fprintf(to, "  %s=<%s>", p->name, kind_name(p->kind));
		fprintf(to, "%*s - %s", MAX(25 - len, 0), "", p->help ? p->help : "");
		if (p->value)
			fprintf(to, " (default: %s)", p->value);
		fprintf(to, "\n");
	}
}

int device_help(FILE *to, const char *driver, struct error *err)
{
	const struct device_class *cls = driver ? device_class_find(driver) : NULL;

	if (driver && (!cls || !cls->user_creatable))
		return err_set(err, -EINVAL, "'%s' is not a valid device model name", driver);
	if (cls) {
		fprintf(to, "%s options:\n", cls->name);
		print_props(to, cls->props);
		if (cls->bus == DEVICE_ON_PCI)
			print_props(to, pci_common_props);
		return 0;
	}
	for (unsigned i = 0; device_classes[i]; i++)
		if (device_classes[i]->user_creatable)
			print_class(to, device_classes[i]);
	return 0;
}
