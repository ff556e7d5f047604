/* Firmware tables: placed in memory as a BIOS would, then walked as a kernel does. */
#include "base/bytes.h"
#include "firmware/firmware.h"
#include "tests/lib/fake_machine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM_BYTES (64 * MiB)

static const u8 uuid[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
			    0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

struct bench {
	struct fake_machine fm;
	struct fwcfg *fw;
	struct firmware *firmware;
	struct firmware_options opt;
};

static int setup(void **state)
{
	struct bench *b = xnew(struct bench);

	fake_machine_init(&b->fm, RAM_BYTES);
	b->fm.m.cpus = 2;
	b->fm.m.max_cpus = 4;
	b->fw = fwcfg_of(fake_device(&b->fm, &fwcfg_class, NULL, NULL));
	b->opt = (struct firmware_options){
		.uuid = uuid,
		.splash_ms = FIRMWARE_NOT_GIVEN,
		.retry_ms = FIRMWARE_NOT_GIVEN,
		.has_serial = {true, false},
		.no_bios = true,
	};
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	firmware_free(b->firmware);
	fake_machine_fini(&b->fm);
	free(b);
	return 0;
}

static void make(struct bench *b)
{
	struct error err;

	if (firmware_new(&b->firmware, &b->fm.m, b->fw, &b->opt, &err) < 0)
		fail_msg("%s", err.text);
}

static u8 *ram(struct bench *b, u64 gpa)
{
	u8 *p = mem_ptr_rw(b->fm.m.mem, gpa, 1);

	assert_non_null(p);
	return p;
}

static u8 sum(const u8 *p, size_t bytes)
{
	u8 s = 0;

	while (bytes--)
		s = (u8)(s + *p++);
	return s;
}

/* As a kernel looks for it: a signature on a 16-byte boundary. */
static u8 *scan(struct bench *b, const char *signature)
{
	for (u64 gpa = 0xf0000; gpa < 0x100000; gpa += 16)
		if (!memcmp(ram(b, gpa), signature, strlen(signature)))
			return ram(b, gpa);
	fail_msg("no %s below 1 MiB", signature);
	return NULL;
}

static void place(struct bench *b)
{
	struct error err;

	make(b);
	if (firmware_place_tables(b->firmware, &err) < 0)
		fail_msg("%s", err.text);
}

/* A table that the list at `list` (entries of `size` bytes) names. */
static u8 *find_table(struct bench *b, u8 *list, unsigned size, const char *signature)
{
	u32 bytes = load_le32(list + 4);

	assert_int_equal(sum(list, bytes), 0);
	for (u32 off = 36; off < bytes; off += size) {
		u8 *table = ram(b, size == 8 ? load_le64(list + off) : load_le32(list + off));

		assert_int_equal(sum(table, load_le32(table + 4)), 0);
		if (!memcmp(table, signature, 4))
			return table;
	}
	fail_msg("no table %s", signature);
	return NULL;
}

static void both_roots_lead_to_all_tables(void **state)
{
	struct bench *b = *state;
	u8 *rsdp, *rsdt, *xsdt, *fadt, *dsdt;

	place(b);
	rsdp = scan(b, "RSD PTR ");
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	rsdt = ram(b, load_le32(rsdp + 16));
	xsdt = ram(b, load_le64(rsdp + 24));
	assert_memory_equal(rsdt, "RSDT", 4);
	assert_memory_equal(xsdt, "XSDT", 4);
	assert_ptr_equal(find_table(b, rsdt, 4, "APIC"), find_table(b, xsdt, 8, "APIC"));
	assert_ptr_equal(find_table(b, rsdt, 4, "SSDT"), find_table(b, xsdt, 8, "SSDT"));
	fadt = find_table(b, xsdt, 8, "FACP");
	dsdt = ram(b, load_le32(fadt + 40));
	assert_memory_equal(dsdt, "DSDT", 4);
	assert_int_equal(sum(dsdt, load_le32(dsdt + 4)), 0);
	assert_ptr_equal(dsdt, ram(b, load_le64(fadt + 140)));
	assert_memory_equal(ram(b, load_le32(fadt + 36)), "FACS", 4);
	assert_int_equal(load_le32(fadt + 36) % 64, 0);
}

static void fadt_names_the_ports_of_the_power_management_function(void **state)
{
	struct bench *b = *state;
	u8 *fadt;

	place(b);
	fadt = find_table(b, ram(b, load_le32(scan(b, "RSD PTR ") + 16)), 4, "FACP");
	assert_int_equal(load_le16(fadt + 46), 9);
	assert_int_equal(load_le32(fadt + 48), 0xb2);
	assert_int_equal(load_le32(fadt + 56), 0x600);
	assert_int_equal(load_le32(fadt + 64), 0x604);
	assert_int_equal(load_le32(fadt + 76), 0x608);
	assert_int_equal(load_le32(fadt + 80), 0x60c);
	assert_int_equal(load_le64(fadt + 120), 0xcf9);
	assert_int_equal(fadt[128], 0x0f);
}

static void madt_lists_each_processor_and_the_level_interrupts(void **state)
{
	struct bench *b = *state;
	unsigned enabled = 0, disabled = 0, overrides = 0;
	u32 ids[] = {0, 1, 2, 4}; /* of three cores a socket */
	u8 *madt;

	b->fm.m.apic_ids = ids;
	place(b);
	b->fm.m.apic_ids = NULL;
	outw(&b->fm, 0x510, 0xf); /* FW_CFG_MAX_CPUS */
	assert_int_equal(inb(&b->fm, 0x511), 5);
	madt = find_table(b, ram(b, load_le32(scan(b, "RSD PTR ") + 16)), 4, "APIC");
	for (u32 off = 44; off < load_le32(madt + 4); off += madt[off + 1]) {
		const u8 *entry = madt + off;

		assert_true(entry[1] >= 6);
		if (entry[0] == 0) {
			assert_int_equal(entry[2], enabled + disabled);
			assert_int_equal(entry[3], ids[entry[2]]);
		}
		enabled += entry[0] == 0 && load_le32(entry + 4) == 1;
		disabled += entry[0] == 0 && load_le32(entry + 4) == 0;
		overrides += entry[0] == 2;
		if (entry[0] == 2 && entry[3] == 0)
			assert_int_equal(load_le32(entry + 4), 2);
		else if (entry[0] == 2)
			assert_int_equal(load_le16(entry + 8), 0xd);
	}
	assert_int_equal(enabled, 2);
	assert_int_equal(disabled, 2);
	assert_int_equal(overrides, 5);
}

/* String n of a structure. */
static const char *smbios_string(const u8 *p, u8 n)
{
	const char *text = (const char *)p + p[1];

	assert_true(n > 0);
	while (--n)
		text += strlen(text) + 1;
	return text;
}

static void smbios_says_what_it_is_told(void **state)
{
	struct bench *b = *state;
	struct opts said[SMBIOS_TYPES] = {{NULL, 0}};
	bool board = false;
	struct error err;
	u8 *p;

	assert_int_equal(opts_parse(&said[0], "vendor=V,release=3.7", NULL, &err), 0);
	assert_int_equal(opts_parse(&said[1], "serial=S1,family=F,version=", NULL, &err), 0);
	assert_int_equal(opts_parse(&said[2], "product=Board,asset=A", NULL, &err), 0);
	b->opt.smbios = said;
	place(b);
	p = ram(b, load_le32(scan(b, "_SM_") + 24));
	while (p[0] != 127) {
		if (p[0] == 0) {
			assert_string_equal(smbios_string(p, p[4]), "V");
			assert_int_equal(p[0x14] << 8 | p[0x15], 0x307);
		} else if (p[0] == 1) {
			assert_string_equal(smbios_string(p, p[4]), "cowvm");
			assert_int_equal(p[6], 0); /* no version */
			assert_string_equal(smbios_string(p, p[7]), "S1");
			assert_string_equal(smbios_string(p, p[0x1a]), "F");
		} else if (p[0] == 2) {
			assert_string_equal(smbios_string(p, p[5]), "Board");
			assert_string_equal(smbios_string(p, p[8]), "A");
			board = true;
		}
		for (p += p[1]; p[0] || p[1]; p++)
			;
		p += 2;
	}
	assert_true(board);
	for (unsigned i = 0; i < ARRAY_LEN(said); i++)
		opts_fini(&said[i]);
}

static int place_of(void *arg, const char *id)
{
	return strcmp(id, "nic") ? -ENOENT : 0x18;
}

/* The structure of this type: the n-th, from 0 on. */
static u8 *structure(struct bench *b, u8 type, unsigned n)
{
	u8 *p = ram(b, load_le32(scan(b, "_SM_") + 24));

	while (p[0] != 127 && (p[0] != type || n-- > 0)) {
		for (p += p[1]; p[0] || p[1]; p++)
			;
		p += 2;
	}
	assert_int_equal(p[0], type);
	return p;
}

static void smbios_has_what_only_the_user_knows(void **state)
{
	static const struct {
		unsigned type;
		const char *text;
	} lines[] = {
		{4, "sock_pfx=S,max-speed=3000,processor-id=0x1122334455667788,part=P"},
		{8, "type,internal_reference=I,external_reference=E,port_type=9"},
		{8, "type,connector_type=5"},
		{11, "value=first,value=second"},
		{17, "loc_pfx=L,bank=B,speed=2400"},
		{41, "type,designation=N,kind=ethernet,instance=2,pcidev=nic"},
	};
	struct opts said[SMBIOS_TYPES] = {{NULL, 0}};
	struct bench *b = *state;
	struct error err;
	u8 *p;

	for (unsigned i = 0; i < ARRAY_LEN(lines); i++)
		assert_int_equal(opts_append(&said[lines[i].type], lines[i].text, NULL, &err), 0);
	b->opt.smbios = said;
	b->opt.pci_place = place_of;
	place(b);
	p = structure(b, 4, 0);
	assert_string_equal(smbios_string(p, p[4]), "S 0");
	assert_true(load_le64(p + 8) == 0x1122334455667788);
	assert_int_equal(load_le16(p + 0x14), 3000);
	assert_string_equal(smbios_string(p, p[0x22]), "P");
	p = structure(b, 8, 0);
	assert_string_equal(smbios_string(p, p[6]), "E");
	assert_int_equal(p[8], 9);
	p = structure(b, 8, 1);
	assert_int_equal(p[4] | p[6], 0);
	assert_int_equal(p[7], 5);
	p = structure(b, 11, 0);
	assert_int_equal(p[4], 2);
	assert_string_equal(smbios_string(p, 2), "second");
	p = structure(b, 17, 0);
	assert_string_equal(smbios_string(p, p[0x10]), "L 0");
	assert_string_equal(smbios_string(p, p[0x11]), "B");
	assert_int_equal(load_le16(p + 0x15), 2400);
	p = structure(b, 41, 0);
	assert_string_equal(smbios_string(p, p[4]), "N");
	assert_int_equal(p[5], 0x85);
	assert_int_equal(p[6], 2);
	assert_int_equal(p[10], 0x18);
	for (unsigned i = 0; i < ARRAY_LEN(said); i++)
		opts_fini(&said[i]);
}

static void smbios_of_a_device_that_is_not_there_is_refused(void **state)
{
	struct opts said[SMBIOS_TYPES] = {{NULL, 0}};
	struct bench *b = *state;
	struct error err;

	b->opt.smbios = said;
	b->opt.pci_place = place_of;
	assert_int_equal(opts_append(&said[41], "type,pcidev=x", NULL, &err), 0);
	assert_true(firmware_new(&b->firmware, &b->fm.m, b->fw, &b->opt, &err) < 0);
	assert_string_equal(err.text, "No PCI device 'x' for SMBIOS type 41");
	opts_fini(&said[41]);
}

static void smbios_of_more_than_64_kib_is_refused(void **state)
{
	struct opts said[SMBIOS_TYPES] = {{NULL, 0}};
	AUTO_FREE char *text = xalloc(70000);
	struct bench *b = *state;
	struct error err;

	b->opt.smbios = said;
	memset(text, 'x', 66000);
	opts_add(&said[11], "value", text, false);
	assert_true(firmware_new(&b->firmware, &b->fm.m, b->fw, &b->opt, &err) < 0);
	assert_non_null(strstr(err.text, "expected at most 65535"));
	opts_fini(&said[11]);
}

static void smbios_tells_uuid_and_memory(void **state)
{
	static const u8 stored[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66,
				      0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
	static const u8 wanted[] = {0, 1, 3, 4, 16, 17, 19, 32, 127};
	struct bench *b = *state;
	bool seen[128] = {false};
	u8 *anchor, *p;
	unsigned n;

	place(b);
	anchor = scan(b, "_SM_");
	assert_int_equal(sum(anchor, 31), 0);
	assert_int_equal(sum(anchor + 16, 15), 0);
	p = ram(b, load_le32(anchor + 24));
	for (n = 0; n < load_le16(anchor + 28); n++) {
		assert_true(p[0] < 128 && p[1] >= 4);
		seen[p[0]] = true;
		if (p[0] == 1)
			assert_memory_equal(p + 8, stored, 16);
		if (p[0] == 17)
			assert_int_equal(load_le16(p + 0xc), RAM_BYTES / MiB);
		for (p += p[1]; p[0] || p[1]; p++)
			;
		p += 2;
	}
	assert_int_equal(p - ram(b, load_le32(anchor + 24)), load_le16(anchor + 22));
	for (unsigned i = 0; i < ARRAY_LEN(wanted); i++)
		assert_true(seen[wanted[i]]);
}

static void e820_file_covers_ram_only_where_it_is(void **state)
{
	struct bench *b = *state;
	const u8 *e820;
	size_t bytes;

	b->fm.m.ram_above_4g = GiB;
	make(b);
	e820 = fwcfg_file(b->fw, "etc/e820", &bytes);
	assert_non_null(e820);
	assert_int_equal(bytes, 3 * 20);
	assert_int_equal(load_le32(e820 + 16), E820_RESERVED);
	assert_int_equal(load_le64(e820 + 20), 0);
	assert_int_equal(load_le64(e820 + 28), RAM_BYTES);
	assert_int_equal(load_le32(e820 + 36), E820_RAM);
	assert_int_equal(load_le64(e820 + 40), 4 * GiB);
	assert_int_equal(load_le64(e820 + 48), GiB);
}

static void boot_options_become_files(void **state)
{
	struct bench *b = *state;
	const char *order;
	const u8 *wait;
	size_t bytes;

	b->opt.boot_files = "/pci@i0cf8/ide@1,1/drive@0/disk@0\nHALT";
	b->opt.splash_ms = 2500;
	make(b);
	order = fwcfg_file(b->fw, "bootorder", &bytes);
	assert_string_equal(order, "/pci@i0cf8/ide@1,1/drive@0/disk@0\nHALT");
	assert_int_equal(bytes, strlen(order) + 1);
	wait = fwcfg_file(b->fw, "etc/boot-menu-wait", &bytes);
	assert_int_equal(load_le16(wait), 2500);
	assert_null(fwcfg_file(b->fw, "etc/boot-fail-wait", &bytes));
}

/* A BIOS of 128 KiB whose bytes tell their place. */
static void write_bios(const char *path, size_t bytes)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (size_t i = 0; i < bytes; i++)
		assert_true(fputc((int)(i >> 12 & 0xff), f) != EOF);
	fclose(f);
}

static void bios_lies_below_4_gib_and_its_end_below_1_mib(void **state)
{
	struct bench *b = *state;
	char dir[] = "/tmp/cowvm-test-XXXXXX", path[64];
	const char *dirs[1];
	u8 *copy, byte;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/bios-256k.bin", dir);
	write_bios(path, 256 * KiB);
	dirs[0] = dir;
	b->opt.no_bios = false;
	b->opt.dirs = dirs;
	b->opt.n_dirs = 1;
	make(b);
	unlink(path);
	rmdir(dir);
	assert_int_equal(mem_read(b->fm.m.mem, 0xfffff000, &byte, 1), 0);
	assert_int_equal(byte, 63);
	assert_int_equal(mem_write(b->fm.m.mem, 0xfffff000, "x", 1), 0);
	assert_int_equal(mem_read(b->fm.m.mem, 0xfffff000, &byte, 1), 0);
	assert_int_equal(byte, 63);
	copy = ram(b, 0xe0000);
	*copy = 0xff;
	firmware_reset(b->firmware);
	assert_int_equal(*copy, 32);
	assert_int_equal(*ram(b, 0xfffff), 63);
}

static void a_bios_of_odd_size_or_none_is_refused(void **state)
{
	struct bench *b = *state;
	char path[] = "/tmp/cowvm-test-XXXXXX";
	struct error err;

	close(mkstemp(path));
	write_bios(path, 1000);
	b->opt.no_bios = false;
	b->opt.bios = path;
	assert_true(firmware_new(&b->firmware, &b->fm.m, b->fw, &b->opt, &err) < 0);
	assert_non_null(strstr(err.text, "1000 bytes"));
	unlink(path);
	assert_true(firmware_new(&b->firmware, &b->fm.m, b->fw, &b->opt, &err) < 0);
	assert_non_null(strstr(err.text, path));
}

#define FIRMWARE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FIRMWARE_TEST(both_roots_lead_to_all_tables),
		FIRMWARE_TEST(fadt_names_the_ports_of_the_power_management_function),
		FIRMWARE_TEST(madt_lists_each_processor_and_the_level_interrupts),
		FIRMWARE_TEST(smbios_says_what_it_is_told),
		FIRMWARE_TEST(smbios_has_what_only_the_user_knows),
		FIRMWARE_TEST(smbios_of_a_device_that_is_not_there_is_refused),
		FIRMWARE_TEST(smbios_of_more_than_64_kib_is_refused),
		FIRMWARE_TEST(smbios_tells_uuid_and_memory),
		FIRMWARE_TEST(e820_file_covers_ram_only_where_it_is),
		FIRMWARE_TEST(boot_options_become_files),
		FIRMWARE_TEST(bios_lies_below_4_gib_and_its_end_below_1_mib),
		FIRMWARE_TEST(a_bios_of_odd_size_or_none_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
