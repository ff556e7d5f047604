/* `info mem` and `info tlb`: what a vCPU's page tables map. */
#include "vmm/core/paging.h"
#include "vmm/vm.h"

#include <errno.h>

#define LINES_MAX 100000 /* a terminal gets; tables may map the same page for ever */

struct listing {
	struct printer *out;
	unsigned digits;
	u32 lines;
	struct paging_leaf run; /* bytes 0: none */
};

static int read_memory(void *arg, u64 gpa, void *buf, u64 bytes)
{
	struct vm *vm = arg;

	return mem_read(vm->machine.mem, gpa, buf, bytes);
}

/* The vCPUs are held. */
static int get_paging(struct vm *vm, u32 cpu, struct paging *p)
{
	struct kvm_sregs s;
	int ret = vcpu_get_sregs(vcpus_get(vm->vcpus, cpu), &s);

	*p = (struct paging){.cr0 = s.cr0,
			     .cr3 = s.cr3,
			     .cr4 = s.cr4,
			     .efer = s.efer,
			     .read = read_memory,
			     .arg = vm};
	return ret;
}

static void print_run(struct listing *l)
{
	const struct paging_leaf *r = &l->run;
	int n = (int)l->digits;

	if (!r->bytes)
		return;
	print_to(l->out, "%0*llx-%0*llx %0*llx %cr%c\n", n, (unsigned long long)r->gva, n,
		 (unsigned long long)(r->gva + r->bytes), n, (unsigned long long)r->bytes,
		 r->user ? 'u' : '-', r->write ? 'w' : '-');
	l->lines++;
}

/* Neighbours with the same rights are one line. */
static bool list_mem(void *arg, const struct paging_leaf *leaf)
{
	struct listing *l = arg;
	struct paging_leaf *r = &l->run;

	if (r->bytes && r->gva + r->bytes == leaf->gva && r->user == leaf->user &&
	    r->write == leaf->write) {
		r->bytes += leaf->bytes;
		return true;
	}
	print_run(l);
	*r = *leaf;
	return l->lines < LINES_MAX;
}

/* Flags of the entry itself: no execution, global, large, dirty, accessed, no cache,
 * write through, user, writable. */
static bool list_tlb(void *arg, const struct paging_leaf *leaf)
{
	static const struct {
		char letter;
		unsigned bit;
	} flags[] = {{'X', 63}, {'G', 8}, {'P', 7}, {'D', 6}, {'A', 5},
		     {'C', 4},	{'T', 3}, {'U', 2}, {'W', 1}};
	struct listing *l = arg;
	char text[ARRAY_LEN(flags) + 1] = "";

	for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
		text[i] = leaf->entry >> flags[i].bit & 1 ? flags[i].letter : '-';
	print_to(l->out, "%016llx: %016llx %s\n", (unsigned long long)leaf->gva,
		 (unsigned long long)leaf->gpa, text);
	return ++l->lines < LINES_MAX;
}

static int list(struct vm *vm, u32 cpu, struct printer *out,
		bool (*fn)(void *arg, const struct paging_leaf *leaf), struct error *err)
{
	struct listing l = {.out = out};
	struct paging p;
	bool all = true;
	int ret;

	vm_hold_cpus(vm);
	ret = get_paging(vm, cpu, &p);
	if (ret == 0 && paging_is_on(&p)) {
		l.digits = paging_digits(&p);
		all = paging_each(&p, fn, &l);
		print_run(&l);
	}
	vm_let_cpus_go(vm);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU#%u: cannot read registers", cpu);
	if (!paging_is_on(&p))
		print_to(out, "PG disabled\n");
	if (!all)
		print_to(out, "... and so on\n");
	return 0;
}

int vm_info_mem(struct vm *vm, u32 cpu, struct printer *p, struct error *err)
{
	return list(vm, cpu, p, list_mem, err);
}

int vm_info_tlb(struct vm *vm, u32 cpu, struct printer *p, struct error *err)
{
	return list(vm, cpu, p, list_tlb, err);
}
