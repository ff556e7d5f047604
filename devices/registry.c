/* Every device class there is, one line each, in order of name.
 *
 * There are no constructors and no linker sets: this list is the truth. */
#include "devices/debug.h"
#include "devices/fwcfg.h"
#include "devices/i440fx.h"
#include "devices/ide/ide.h"
#include "devices/net/e1000.h"
#include "devices/piix3.h"
#include "devices/piix4pm.h"
#include "devices/port92.h"
#include "devices/ps2.h"
#include "devices/pvpanic.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/vga/vga.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/input.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "devices/virtio/serial.h"

/* clang-format off */
const struct device_class *const device_classes[] = {
	&debug_exit_class,
	&debugcon_class,
	&e1000_class,
	&fwcfg_class,
	&i440fx_class,
	&i8042_class,
	&ide_cd_class,
	&ide_hd_class,
	&piix3_class,
	&piix4pm_class,
	&piix_ide_class,
	&port92_class,
	&pvpanic_class,
	&rtc_class,
	&serial_class,
	&vga_class,
	&virtconsole_class,
	&virtio_balloon_class,
	&virtio_blk_class,
	&virtio_keyboard_class,
	&virtio_mouse_class,
	&virtio_net_class,
	&virtio_rng_class,
	&virtio_serial_class,
	&virtio_tablet_class,
	&virtserialport_class,
	NULL,
};
/* clang-format on */

/* What people write for short, as with the reference. */
static const struct {
	const char *name, *cls;
} aliases[] = {
	{"virtio-balloon", "virtio-balloon-pci"},   {"virtio-blk", "virtio-blk-pci"},
	{"virtio-keyboard", "virtio-keyboard-pci"}, {"virtio-mouse", "virtio-mouse-pci"},
	{"virtio-net", "virtio-net-pci"},	    {"virtio-rng", "virtio-rng-pci"},
	{"virtio-serial", "virtio-serial-pci"},	    {"virtio-tablet", "virtio-tablet-pci"},
};

const struct device_class *device_class_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(aliases); i++)
		if (!strcmp(aliases[i].name, name))
			name = aliases[i].cls;
	for (unsigned i = 0; device_classes[i]; i++)
		if (!strcmp(device_classes[i]->name, name))
			return device_classes[i];
	return NULL;
}
