/* What the monitor says and asks about guest memory: size and balloon. */
#include "devices/virtio/balloon.h"
#include "vmm/vm.h"

#include <errno.h>

void vm_info_memory_size(struct vm *vm, struct printer *p)
{
	print_to(p, "base memory: %llu\nplugged memory: 0\n",
		 (unsigned long long)vm->config->ram_bytes);
}

static int find_balloon(struct vm *vm, struct device **out, struct error *err)
{
	*out = balloon_find(&vm->machine);
	return *out ? 0 : err_set(err, -ENODEV, "No balloon device has been activated");
}

int vm_info_balloon(struct vm *vm, struct printer *p, struct error *err)
{
	struct device *dev;
	const char *name;
	u64 value;
	int ret = find_balloon(vm, &dev, err);

	if (ret < 0)
		return ret;
	print_to(p, "balloon: actual=%llu\n", (unsigned long long)(balloon_actual(dev) / MiB));
	for (unsigned i = 0; balloon_stat(dev, i, &name, &value); i++)
		print_to(p, "  %s=%llu\n", name, (unsigned long long)value);
	return 0;
}

int vm_balloon(struct vm *vm, u64 bytes, struct error *err)
{
	struct device *dev;
	int ret = find_balloon(vm, &dev, err);

	if (ret == 0 && !bytes)
		ret = err_set(err, -EINVAL, "Parameter 'target' expects a size");
	if (ret == 0)
		balloon_set_target(dev, bytes);
	return ret;
}
