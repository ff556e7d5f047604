/* Every device class there is, one line each, in order of name.
 *
 * A class's object is declared here and defined in its own file: there are no
 * constructors and no linker sets, so this list is the truth. */
#include "devices/device.h"

const struct device_class *const device_classes[] = {
	NULL,
};

const struct device_class *device_class_find(const char *name)
{
	for (unsigned i = 0; device_classes[i]; i++)
		if (!strcmp(device_classes[i]->name, name))
			return device_classes[i];
	return NULL;
}
