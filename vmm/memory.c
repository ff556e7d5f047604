/* What the monitor says and asks about guest memory: size and balloon. */
#include "devices/virtio/balloon.h"
#include "vmm/vm.h"

#include <errno.h>

void vm_info_memory_size(struct vm *vm, struct printer *p)
{
	print_to(p, "base memory: %llu\nplugged memory: 0\n",
		 (unsigned long long)vm->config->ram_bytes);
}

void vm_info_memdev(struct vm *vm, struct printer *p)
{
	static const char *const words[] = {"false", "true"};
	const struct config *c = vm->config;

	print_to(p,
		 "memory backend: pc.ram\n  size:  %llu\n  merge: %s\n  dump: %s\n"
		 "  prealloc: %s\n  share: %s\n",
		 (unsigned long long)c->ram_bytes, words[c->mem_merge], words[!c->mem_no_core],
		 words[c->mem_prealloc], words[c->mem_path != NULL]);
	if (c->mem_path)
		print_to(p, "  mem-path: %s\n", c->mem_path);
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
