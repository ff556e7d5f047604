/* The command line: every option, good and bad values, and what the messages say. */
#include "vmm/config.h"
#include "vmm/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

/* Words of a command line, split at blanks. */
static int parse(struct config *c, const char *line, struct error *err)
{
	AUTO_FREE char *copy = xstrdup(line);
	char *argv[64] = {(char *)"cowvm"}, *save = NULL;
	int argc = 1;

	for (char *p = strtok_r(copy, " ", &save); p; p = strtok_r(NULL, " ", &save))
		argv[argc++] = p;
	assert_true(argc < 64);
	argv[argc] = NULL;
	config_init(c);
	*err = (struct error){0};
	return config_parse(c, argc, argv, err);
}

static void accept(struct config *c, const char *line)
{
	struct error err;

	if (parse(c, line, &err) != 0)
		fail_msg("'%s': %s", line, err.text);
}

static void refuse(const char *line, const char *message)
{
	struct config c;
	struct error err;

	if (parse(&c, line, &err) >= 0)
		fail_msg("'%s' was accepted", line);
	assert_string_equal(err.text, message);
	config_fini(&c);
}

static struct drive_config *drive(struct config *c, const char *id)
{
	struct drive_config *d = config_find_drive(c, id);

	if (!d)
		fail_msg("there is no drive '%s'", id);
	return d;
}

static const char *spec(struct list *list, unsigned n)
{
	list_for_each (pos, list)
		if (n-- == 0)
			return list_entry(pos, struct frontend_config, link)->spec;
	return NULL;
}

static void an_empty_command_line_is_a_machine_with_an_empty_cd_drive(void **state)
{
	struct config c;

	accept(&c, "");
	assert_int_equal(c.ram_bytes, 128 * MiB);
	assert_int_equal(c.cpus, 1);
	assert_true(drive(&c, "ide1-cd0")->cdrom);
	assert_null(drive(&c, "ide1-cd0")->file);
	assert_string_equal(spec(&c.serials, 0), "vc");
	assert_string_equal(spec(&c.monitors, 0), "none");
	config_fini(&c);
}

static void options_may_have_one_dash_or_two(void **state)
{
	struct config c;

	accept(&c, "--enable-kvm --m 64 -S --no-reboot");
	assert_int_equal(c.ram_bytes, 64 * MiB);
	assert_true(c.start_stopped);
	assert_int_equal(c.on_reboot, END_SHUTDOWN);
	config_fini(&c);
}

static void what_is_not_known_is_refused_by_name(void **state)
{
	refuse("-foo", "-foo: invalid option");
	refuse("--foo", "--foo: invalid option");
	refuse("-no-reboot=1", "-no-reboot=1: invalid option");
	refuse("-m", "-m: requires an argument");
	refuse("-m 1G,foo=2", "-m 1G,foo=2: Invalid parameter 'foo'");
	refuse("-global a.b=c", "-global a.b=c: not available: give the property to -device");
}

static void memory_is_in_mebibytes_or_has_a_suffix(void **state)
{
	static const struct {
		const char *line;
		u64 bytes;
	} cases[] = {{"-m 2048", 2 * GiB},     {"-m 2G", 2 * GiB},  {"-m size=512M", 512 * MiB},
		     {"-m 1.5g", 3 * GiB / 2}, {"-m 0", 128 * MiB}, {"-m 0x40", 64 * MiB},
		     {"-m 65536K", 64 * MiB},  {"-m 1t", 1 * TiB}};
	struct config c;

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		accept(&c, cases[i].line);
		assert_int_equal(c.ram_bytes, cases[i].bytes);
		config_fini(&c);
	}
}

#define SIZE_MESSAGE                                                                               \
	"Parameter 'size' expects a non-negative number below 2^64, with an optional suffix k, "   \
	"M, G, T, P or E"

static void bad_memory_sizes_are_refused(void **state)
{
	refuse("-m foo", "-m foo: " SIZE_MESSAGE);
	refuse("-m -1", "-m -1: " SIZE_MESSAGE);
	refuse("-m size=1x", "-m size=1x: " SIZE_MESSAGE);
	refuse("-m 99999999999999999999", "-m 99999999999999999999: " SIZE_MESSAGE);
	refuse("-m 16E", "-m 16E: " SIZE_MESSAGE);
	refuse("-m 512K", "-m 512K: guest memory of 524288 bytes: expected 1 MiB to 4 TiB");
	refuse("-m 5T", "-m 5T: guest memory of 5497558138880 bytes: expected 1 MiB to 4 TiB");
	refuse("-m 1G,slots=2,maxmem=2G", "-m 1G,slots=2,maxmem=2G: adding memory to a running "
					  "machine is not available");
}

static void cpus_are_grouped_into_cores(void **state)
{
	struct config c;

	accept(&c, "-smp 4");
	assert_int_equal(c.cpus, 4);
	assert_int_equal(c.sockets, 1);
	assert_int_equal(c.cores, 4);
	config_fini(&c);
	accept(&c, "-smp 8,sockets=2,threads=2");
	assert_int_equal(c.cores, 2);
	config_fini(&c);
	accept(&c, "-smp sockets=2,cores=3");
	assert_int_equal(c.cpus, 6);
	config_fini(&c);
	accept(&c, "-smp 2,maxcpus=6,sockets=2");
	assert_int_equal(c.cpus, 2);
	assert_int_equal(c.max_cpus, 6);
	assert_int_equal(c.cores, 3);
	config_fini(&c);
}

static void impossible_cpus_are_refused(void **state)
{
	refuse("-smp 0", "-smp 0: Parameter 'cpus' must be greater than zero");
	refuse("-smp x", "-smp x: Parameter 'cpus' expects a number");
	refuse("-smp 300", "-smp 300: Invalid SMP CPUs 300. The max CPUs supported by machine "
			   "'pc' is 255");
	refuse("-smp 2,sockets=3,cores=1",
	       "-smp 2,sockets=3,cores=1: Invalid CPU topology: product of the hierarchy must "
	       "match maxcpus: sockets (3) * cores (1) * threads (1) != maxcpus (2)");
	refuse("-smp 4,maxcpus=2",
	       "-smp 4,maxcpus=2: Invalid CPU topology: maxcpus must be equal to or greater than "
	       "smp: sockets (1) * cores (2) * threads (1) == maxcpus (2) < smp_cpus (4)");
	refuse("-smp 2,dies=2", "-smp 2,dies=2: dies not supported by this machine's CPU topology");
	refuse("-smp 2,clusters=2",
	       "-smp 2,clusters=2: clusters not supported by this machine's CPU topology");
}

static void only_kvm_and_the_pc_are_there(void **state)
{
	struct config c;

	accept(&c, "-machine pc,accel=kvm,usb=off -accel kvm -M pc-i440fx-7.2 -enable-kvm");
	assert_true(c.has_accel);
	config_fini(&c);
	accept(&c, "-M accel=kvm:tcg");
	config_fini(&c);
	accept(&c, "-accel kvm -accel tcg");
	config_fini(&c);
	refuse("-accel kvm -accel foo", "-accel foo: invalid accelerator foo");
	refuse("-accel tcg", "-accel tcg: accelerator 'tcg' is not available, only kvm");
	refuse("-accel foo", "-accel foo: invalid accelerator foo");
	refuse("-machine q35", "-machine q35: unsupported machine type 'q35'; use -machine help "
			       "to list supported machines");
	refuse("-machine pc,usb=on", "-machine pc,usb=on: usb=on is not available, only off");
	refuse("-machine pc,foo=1", "-machine pc,foo=1: Invalid parameter 'foo'");
	refuse("-machine pc,accel=tcg",
	       "-machine pc,accel=tcg: accelerator 'tcg' is not available, only kvm");
}

static void smbios_fields_are_kept_by_type(void **state)
{
	struct config c;

	accept(&c, "-smbios type=1,manufacturer=A,serial=b -smbios type=1,serial=c "
		   "-smbios type=0,release=1.20");
	assert_string_equal(opts_get(&c.smbios[1], "manufacturer"), "A");
	assert_string_equal(opts_get(&c.smbios[1], "serial"), "c");
	assert_string_equal(opts_get(&c.smbios[0], "release"), "1.20");
	config_fini(&c);
	accept(&c, "-smbios type=1,uuid=00112233-4455-6677-8899-aabbccddeeff");
	assert_true(c.has_uuid);
	assert_int_equal(c.uuid[15], 0xff);
	config_fini(&c);
	refuse("-smbios type=1,foo=x", "-smbios type=1,foo=x: Invalid parameter 'foo'");
	refuse("-smbios type=1,uuid=z", "-smbios type=1,uuid=z: Invalid UUID");
	refuse("-smbios type=9",
	       "-smbios type=9: Don't know how to build fields for SMBIOS type 9");
	refuse("-smbios type=0,release=1", "-smbios type=0,release=1: Invalid release");
	accept(&c, "-smbios type=11,value=a,value=b -smbios type=11,value=c "
		   "-smbios type=8,port_type=9 -smbios type=41,kind=sas,instance=3");
	assert_int_equal(c.smbios[11].n, 3);
	assert_int_equal(c.smbios[8].n, 2);
	assert_int_equal(c.smbios[41].n, 3);
	config_fini(&c);
	refuse("-smbios type=4,max-speed=99999",
	       "-smbios type=4,max-speed=99999: max-speed is 99999, expected 0..65535");
	refuse("-smbios type=17,speed=x",
	       "-smbios type=17,speed=x: Parameter 'speed' expects a number");
	refuse("-smbios type=41,kind=x", "-smbios type=41,kind=x: invalid parameter value: x");
	refuse("-smbios type=11,value=", "-smbios type=11,value=: an OEM string is empty");
	refuse("-smbios type=99999",
	       "-smbios type=99999: Don't know how to build fields for SMBIOS type 99999");
	refuse("-smbios serial=1", "-smbios serial=1: Must specify either file= or type=");
}

static void the_cpu_is_that_of_the_host(void **state)
{
	struct config c;

	accept(&c, "-cpu host,+aes,-avx");
	assert_string_equal(c.cpu_model, "host,+aes,-avx");
	config_fini(&c);
	accept(&c, "-cpu max");
	assert_string_equal(c.cpu_model, "max");
	config_fini(&c);
	refuse("-cpu i486", "-cpu i486: unable to find CPU model 'i486'");
	refuse("-cpu hos", "-cpu hos: unable to find CPU model 'hos'");
	refuse("-cpu hosts,+a", "-cpu hosts,+a: unable to find CPU model 'hosts'");
}

static void names_and_uuid_are_kept(void **state)
{
	static const u8 want[16] = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0,
				    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
	struct config c;

	accept(&c, "-name guest=web,process=vm1,debug-threads=on "
		   "-uuid 12345678-9abc-def0-0123-456789abcdef");
	assert_string_equal(c.name, "web");
	assert_string_equal(c.process_name, "vm1");
	assert_memory_equal(c.uuid, want, 16);
	config_fini(&c);
	refuse("-uuid 12", "-uuid 12: failed to parse UUID string: wrong format");
	refuse("-uuid 12345678-9abc-def0-0123-456789abcdeg",
	       "-uuid 12345678-9abc-def0-0123-456789abcdeg: failed to parse UUID string: wrong "
	       "format");
	refuse("-name a,foo=1", "-name a,foo=1: Invalid parameter 'foo'");
}

static void hard_disks_have_their_places(void **state)
{
	struct config c;

	accept(&c, "-hda a -hdb b -cdrom c -hdd d");
	assert_string_equal(drive(&c, "ide0-hd0")->file, "a");
	assert_string_equal(drive(&c, "ide0-hd1")->file, "b");
	assert_string_equal(drive(&c, "ide1-cd0")->file, "c");
	assert_string_equal(drive(&c, "ide1-hd1")->file, "d");
	assert_string_equal(drive(&c, "ide1-hd1")->source, "-hdd d");
	config_fini(&c);
	accept(&c, "-hdc c disk");
	assert_null(config_find_drive(&c, "ide1-cd0"));
	assert_string_equal(drive(&c, "ide0-hd0")->file, "disk");
	config_fini(&c);
}

static void secrets_are_kept_and_hidden_from_the_command_line(void **state)
{
	char word[] = "-object", text[] = "secret,data=a,,b,id=s",
	     json[] = "{\"qom-type\":\"secret\","
		      "\"id\":\"j\",\"data\":\"k\"}";
	char *argv[] = {"cowvm", word, text, word, json, NULL};
	struct error err = {0};
	struct config c;

	config_init(&c);
	assert_int_equal(config_parse(&c, 5, argv, &err), 0);
	assert_int_equal(secrets_find(&c.secrets, "s")->bytes, 3);
	assert_memory_equal(secrets_find(&c.secrets, "s")->data, "a,b", 3);
	assert_int_equal(secrets_find(&c.secrets, "j")->bytes, 1);
	assert_string_equal(text, "secret,data=xxxx,id=s");
	assert_int_equal(strspn(json, "x"), strlen(json));
	config_fini(&c);
	refuse("-object secret,id=s,data=hush -object secret,id=s,data=hush",
	       "-object secret,id=s,data=xxxx: Duplicate ID 's' for object");
	refuse("-object secret,data=hush", "-object secret,data=xxxx: Parameter 'id' is missing");
	refuse("-object secret,id=s",
	       "-object secret,id=s: Either 'file' or 'data' must be provided");
	refuse("-object foo,id=s",
	       "-object foo,id=s: Parameter 'qom-type' does not accept value 'foo'");
}

static void what_is_not_the_drives_is_the_images(void **state)
{
	struct config c;
	struct drive_config *d;

	accept(&c, "-drive file=a,encrypt.key-secret=s,if=virtio,backing.encrypt.key-secret=t "
		   "-drive driver=qcow2,file.filename=b");
	d = drive(&c, "virtio0");
	assert_int_equal(d->image.n, 2);
	assert_string_equal(opts_get(&d->image, "encrypt.key-secret"), "s");
	assert_string_equal(opts_get(&d->image, "backing.encrypt.key-secret"), "t");
	d = drive(&c, "ide0-hd0");
	assert_null(d->file);
	assert_string_equal(d->format, "qcow2");
	config_fini(&c);
}

static void drives_find_free_places(void **state)
{
	struct config c;

	accept(&c, "-hda a -drive file=b -drive file=v,if=virtio -drive file=w,if=virtio "
		   "-drive file=x,if=virtio,index=5 -drive file=n,if=none");
	assert_string_equal(drive(&c, "ide0-hd1")->file, "b");
	assert_string_equal(drive(&c, "virtio0")->file, "v");
	assert_string_equal(drive(&c, "virtio1")->file, "w");
	assert_string_equal(drive(&c, "virtio5")->file, "x");
	assert_string_equal(drive(&c, "none0")->file, "n");
	config_fini(&c);
}

static void properties_of_drives_are_kept(void **state)
{
	struct config c;
	struct drive_config *d;

	accept(&c, "-drive file=a,,b.qcow2,id=disk,format=qcow2,cache=none,aio=native,serial=S1,"
		   "readonly=on,snapshot=on,discard=unmap,if=none,werror=report");
	d = drive(&c, "disk");
	assert_string_equal(d->file, "a,b.qcow2");
	assert_string_equal(d->format, "qcow2");
	assert_string_equal(d->cache, "none");
	assert_string_equal(d->aio, "native");
	assert_string_equal(d->serial, "S1");
	assert_true(d->readonly && d->snapshot && d->discard_unmap);
	config_fini(&c);
	accept(&c, "-drive media=cdrom,index=3");
	assert_true(drive(&c, "ide1-cd1")->readonly);
	assert_null(drive(&c, "ide1-cd1")->file);
	config_fini(&c);
}

static void snapshot_holds_for_all_drives_but_those_that_refuse(void **state)
{
	struct config c;

	accept(&c, "-hda a -snapshot -hdb b -drive file=v,if=virtio,snapshot=off");
	assert_true(drive(&c, "ide0-hd0")->snapshot);
	assert_true(drive(&c, "ide0-hd1")->snapshot);
	assert_false(drive(&c, "virtio0")->snapshot);
	config_fini(&c);
}

static void bad_drives_are_refused(void **state)
{
	refuse("-hda a -drive file=b,index=0",
	       "-drive file=b,index=0: drive with bus=0, unit=0 (index=0) exists");
	refuse("-drive if=floppyx", "-drive if=floppyx: unsupported bus type 'floppyx'");
	refuse("-drive foo=1", "-drive foo=1: Must specify either driver or file");
	refuse("-drive if=ide", "-drive if=ide: Must specify either driver or file");
	refuse("-drive file=a,media=x", "-drive file=a,media=x: 'x' invalid media");
	refuse("-drive file=a,cache=x", "-drive file=a,cache=x: invalid cache option");
	refuse("-drive file=a,aio=x", "-drive file=a,aio=x: invalid aio option");
	refuse("-drive file=a,discard=x", "-drive file=a,discard=x: Invalid discard option");
	refuse("-drive file=a,index=9",
	       "-drive file=a,index=9: machine type does not support if=ide,bus=4,unit=1");
	refuse("-drive file=a,bus=0,unit=4",
	       "-drive file=a,bus=0,unit=4: unit 4 too big (max is 1)");
	refuse("-drive file=a,index=x",
	       "-drive file=a,index=x: Parameter 'index' expects a number");
	refuse("-drive file=a,index=1,unit=1",
	       "-drive file=a,index=1,unit=1: index cannot be used with bus and unit");
	refuse("-drive file=a,readonly=maybe",
	       "-drive file=a,readonly=maybe: Parameter 'readonly' expects 'on' or 'off'");
	refuse("-drive file=a,werror=x", "-drive file=a,werror=x: 'x' invalid write error action");
	refuse("-drive file=a,rerror=enospc",
	       "-drive file=a,rerror=enospc: 'enospc' invalid read error action");
	refuse("-drive file=a,id=d,if=none -drive file=b,id=d,if=none",
	       "-drive file=b,id=d,if=none: Duplicate ID 'd' for drive");
	refuse("-hda a -hdb b -hdc c -hdd d -drive file=e",
	       "-drive file=e: machine type does not support if=ide,bus=2,unit=0");
}

static void boot_order_is_letters(void **state)
{
	struct config c;

	accept(&c, "-boot d");
	assert_string_equal(c.boot_order, "d");
	config_fini(&c);
	accept(&c, "-boot order=cd,once=n,menu=on,strict=on,splash-time=5,reboot-timeout=7");
	assert_string_equal(c.boot_order, "cd");
	assert_string_equal(c.boot_once, "n");
	assert_true(c.boot_menu && c.boot_strict);
	assert_int_equal(c.boot_splash_ms, 5);
	assert_int_equal(c.boot_retry_ms, 7);
	config_fini(&c);
	refuse("-boot z", "-boot z: Invalid boot device 'z'");
	refuse("-boot dd", "-boot dd: Boot device 'd' was given twice");
	refuse("-boot menu=x", "-boot menu=x: Parameter 'menu' expects 'on' or 'off'");
	refuse("-boot foo=1", "-boot foo=1: Invalid parameter 'foo'");
}

static void kernel_options_belong_together(void **state)
{
	struct config c;

	accept(&c, "-kernel k -initrd i -append console=ttyS0 -bios b -L d1 -L d2");
	assert_string_equal(c.kernel, "k");
	assert_string_equal(c.initrd, "i");
	assert_string_equal(c.append, "console=ttyS0");
	assert_string_equal(c.bios, "b");
	assert_string_equal(list_entry(c.firmware_dirs.next, struct dir_config, link)->path, "d1");
	config_fini(&c);
	refuse("-append x", "-append only allowed with -kernel option");
	refuse("-initrd x", "-initrd only allowed with -kernel option");
}

static void nographic_puts_serial_and_monitor_on_the_terminal(void **state)
{
	struct config c;

	accept(&c, "-nographic");
	assert_string_equal(spec(&c.serials, 0), "mon:stdio");
	assert_null(spec(&c.monitors, 0));
	config_fini(&c);
	accept(&c, "-nographic -monitor none");
	assert_string_equal(spec(&c.serials, 0), "stdio");
	config_fini(&c);
	accept(&c, "-nographic -serial null");
	assert_string_equal(spec(&c.monitors, 0), "stdio");
	config_fini(&c);
}

static void streams_are_kept_in_order(void **state)
{
	struct config c;

	accept(&c, "-serial stdio -serial file:x -serial pty -serial none -monitor "
		   "unix:/tmp/m,server,nowait -debugcon null");
	assert_string_equal(spec(&c.serials, 0), "stdio");
	assert_string_equal(spec(&c.serials, 3), "none");
	assert_string_equal(spec(&c.monitors, 0), "unix:/tmp/m,server,nowait");
	assert_string_equal(spec(&c.debugcons, 0), "null");
	config_fini(&c);
	accept(&c, "-chardev socket,id=m,path=/s,server=on,wait=off -mon m,mode=readline "
		   "-chardev file,id=f,path=p -serial chardev:f -chardev stdio,id=s,mux=on");
	assert_string_equal(config_find_chardev(&c, "m")->spec, "unix:/s,server,nowait");
	assert_string_equal(config_find_chardev(&c, "f")->spec, "file:p");
	assert_true(config_find_chardev(&c, "s")->mux);
	assert_string_equal(spec(&c.monitors, 0), "chardev:m");
	config_fini(&c);
}

static void bad_streams_are_refused(void **state)
{
	refuse("-serial foo", "-serial foo: 'foo' is not a valid char driver");
	refuse("-monitor file:", "-monitor file:: 'file:' is not a valid char driver");
	refuse("-serial null -serial null -serial null -serial null -serial null",
	       "-serial null: there are at most 4 serial ports");
	refuse("-chardev foo", "-chardev foo: chardev: no id specified");
	refuse("-chardev foo,id=x", "-chardev foo,id=x: 'foo' is not a valid char driver name");
	refuse("-chardev file,id=x", "-chardev file,id=x: chardev: file: no filename given");
	refuse("-chardev null,id=x -chardev null,id=x",
	       "-chardev null,id=x: Duplicate ID 'x' for chardev");
	refuse("-mon c,mode=x", "-mon c,mode=x: Parameter 'mode' does not accept value 'x'");
	refuse("-echr 0", "-echr 0: Bad argument: expected a character or 1 to 255");
	refuse("-parallel stdio", "-parallel stdio: there is no parallel port: only none or null");
	refuse("-daemonize -nographic", "-nographic cannot be used with -daemonize");
	refuse("-daemonize -monitor stdio", "cannot use stdio with -daemonize");
}

static unsigned count_nets(const char *args)
{
	struct config c;
	unsigned n = 0;

	accept(&c, args);
	list_for_each (pos, &c.nets)
		n++;
	config_fini(&c);
	return n;
}

static void a_card_and_a_network_are_there_unless_somebody_speaks_of_networks(void **state)
{
	assert_int_equal(count_nets(""), 2);
	assert_int_equal(count_nets("-device e1000"), 2);
	assert_int_equal(count_nets("-nodefaults"), 0);
	assert_int_equal(count_nets("-net none"), 0);
	assert_int_equal(count_nets("-nic none"), 0);
	assert_int_equal(count_nets("-netdev user,id=a"), 1);
	assert_int_equal(count_nets("-nic user,model=virtio,hostfwd=tcp::1-:2"), 1);
	assert_int_equal(count_nets("-net nic,model=virtio -net tap,ifname=t0,script=no"), 2);
}

static void networks_are_checked(void **state)
{
	struct config c;

	accept(&c, "-net none -nic none");
	config_fini(&c);
	refuse("-net foo", "-net foo: Parameter 'type' does not accept value 'foo'");
	refuse("-netdev user", "-netdev user: Parameter 'id' is missing");
	refuse("-net user,foo=1", "-net user,foo=1: Invalid parameter 'foo'");
	refuse("-net nic,macaddr=zz", "-net nic,macaddr=zz: invalid syntax for ethernet address");
	refuse("-nic user,mac=1:2:3", "-nic user,mac=1:2:3: invalid syntax for ethernet address");
	refuse("-net nic,macaddr=01:0:0:0:0:1", "-net nic,macaddr=01:0:0:0:0:1: NIC cannot have "
						"multicast MAC address (odd 1st byte)");
	refuse("-nic foo", "-nic foo: Parameter 'type' does not accept value 'foo'");
	refuse("-netdev user,id=a -netdev user,id=a",
	       "-netdev user,id=a: Duplicate ID 'a' for netdev");
	refuse("-net nic -net nic -net nic -net nic -net nic -net nic -net nic -net nic -net nic",
	       "-net nic: too many NICs");
}

/* A CD needs no more than to be read. */
static void files_that_may_be_read_only_are_if_that_will_do(void **state)
{
	static const struct {
		const char *line;
		bool readonly;
	} cases[] = {
		{"-blockdev file,node-name=f,filename=x,auto-read-only=on -device ide-cd,drive=f",
		 true},
		{"-blockdev file,node-name=p,filename=x,auto-read-only=on -blockdev "
		 "raw,node-name=f,file=p -device ide-cd,drive=f",
		 true},
		{"-blockdev file,node-name=f,filename=x -device ide-cd,drive=f", false},
		{"-blockdev file,node-name=f,filename=x,auto-read-only=on -device ide-hd,drive=f",
		 false},
		{"-blockdev file,node-name=p,filename=x -blockdev "
		 "raw,node-name=f,file=p,auto-read-only=on -device ide-cd,drive=f",
		 false},
		{"-blockdev file,node-name=p,filename=x,auto-read-only=on -blockdev "
		 "qcow2,node-name=f,file=p -device ide-cd,drive=f",
		 false},
	};
	struct config c;

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		accept(&c, cases[i].line);
		if (drive(&c, "f")->readonly != cases[i].readonly)
			fail_msg("%s: %d", cases[i].line, drive(&c, "f")->readonly);
		config_fini(&c);
	}
}

static struct vnc_config *vnc_nth(struct config *c, unsigned n)
{
	list_for_each (pos, &c->vncs)
		if (n-- == 0)
			return list_entry(pos, struct vnc_config, link);
	fail_msg("there is no such display");
	return NULL;
}

static void vnc_displays_have_names(void **state)
{
	struct config c;

	accept(&c, "-vnc :1,id=vnc2 -vnc :2 -vnc none -vnc :4,id=d.e-f");
	assert_string_equal(vnc_nth(&c, 0)->id, "vnc2");
	assert_string_equal(vnc_nth(&c, 1)->id, "default");
	assert_string_equal(vnc_nth(&c, 2)->id, "vnc3");
	assert_string_equal(vnc_nth(&c, 3)->id, "d.e-f");
	config_fini(&c);
	refuse("-vnc :1,id=a -vnc :2,id=a", "-vnc :2,id=a: Duplicate ID 'a' for vnc");
	refuse("-vnc :1,id=", "-vnc :1,id=: Parameter 'id' expects an identifier");
	refuse("-vnc :1,id=9a", "-vnc :1,id=9a: Parameter 'id' expects an identifier");
}

static void displays_are_understood(void **state)
{
	struct vnc_config *v;
	struct config c;

	accept(&c, "-display none -vga std -vnc none");
	assert_string_equal(c.vga, "std");
	assert_true(vnc_nth(&c, 0)->none);
	config_fini(&c);
	accept(&c, "-vnc :3,password=on,websocket=on,share=ignore,to=9");
	v = vnc_nth(&c, 0);
	assert_null(v->host);
	assert_string_equal(v->id, "default");
	assert_true(v->password);
	assert_int_equal(v->port, 5903);
	assert_int_equal(v->port_last, 5909);
	assert_int_equal(v->ws_port, 5703);
	assert_int_equal(v->share, 2);
	config_fini(&c);
	accept(&c, "-vnc [::1]:0,password,websocket=localhost:80");
	v = vnc_nth(&c, 0);
	assert_string_equal(v->host, "::1");
	assert_string_equal(v->ws_host, "localhost");
	assert_int_equal(v->ws_port, 80);
	assert_true(v->password);
	config_fini(&c);
	accept(&c, "-vnc h:0,ipv4 -vnc h:1,ipv6=on -vnc h:2,ipv6=off -vnc h:3,ipv4=on,ipv6=on "
		   "-vnc h:4");
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(vnc_nth(&c, i)->no_ipv4, i == 1);
		assert_int_equal(vnc_nth(&c, i)->no_ipv6, i == 0 || i == 2);
	}
	config_fini(&c);
	refuse("-vnc h:1,ipv4=off,ipv6=off",
	       "-vnc h:1,ipv4=off,ipv6=off: Cannot disable IPv4 and IPv6 at same time");
	accept(&c, "-display vnc=unix:a,,b");
	assert_string_equal(vnc_nth(&c, 0)->path, "a,b");
	config_fini(&c);
	refuse("-display gtk", "-display gtk: display 'gtk' is not available, only none and vnc");
	refuse("-display foo", "-display foo: Parameter 'type' does not accept value 'foo'");
	refuse("-vga foo", "-vga foo: unknown vga type: foo");
	refuse("-vga qxl", "-vga qxl: video card 'qxl' is not available, only std and none");
	refuse("-vnc foo", "-vnc foo: no vnc port specified");
	refuse("-vnc 127.0.0.1", "-vnc 127.0.0.1: no vnc port specified");
	refuse("-vnc :abc", "-vnc :abc: can't convert to a number: abc");
	refuse("-vnc :-1", "-vnc :-1: can't convert to a number: -1");
	refuse("-vnc :70000", "-vnc :70000: port 70000 out of range");
	refuse("-vnc :1,zork=1", "-vnc :1,zork=1: Invalid parameter 'zork'");
	refuse("-vnc :1,share=a", "-vnc :1,share=a: unknown vnc share= option");
	refuse("-vnc :1,password=a",
	       "-vnc :1,password=a: Parameter 'password' expects 'on' or 'off'");
	refuse("-vnc :1,sasl=on", "-vnc :1,sasl=on: sasl= is not available");
	refuse("-vnc :5,to=4", "-vnc :5,to=4: to=4 is below the display's number");
	refuse("-vnc unix:a,websocket=on",
	       "-vnc unix:a,websocket=on: UNIX sockets not supported with websock");
}

static void time_base_is_understood(void **state)
{
	struct config c;

	accept(&c, "-rtc base=localtime,clock=host,driftfix=slew");
	assert_int_equal(c.rtc_base, RTC_LOCALTIME);
	config_fini(&c);
	accept(&c, "-rtc base=2006-06-17T16:01:21");
	assert_int_equal(c.rtc_base, RTC_DATE);
	assert_int_equal(c.rtc_date, 1150560081);
	config_fini(&c);
	refuse("-rtc base=foo", "-rtc base=foo: invalid datetime format; valid formats: "
				"'2006-06-17T16:01:21' or '2006-06-17'");
	refuse("-rtc clock=foo", "-rtc clock=foo: invalid option value 'foo'");
	accept(&c, "-rtc base=utc,clock=vm");
	assert_int_equal(c.rtc_clock, 0);
	config_fini(&c);
}

static void actions_say_how_it_ends(void **state)
{
	struct config c;

	accept(&c, "-action reboot=shutdown,shutdown=pause,panic=none");
	assert_int_equal(c.on_reboot, END_SHUTDOWN);
	assert_int_equal(c.on_shutdown, END_PAUSE);
	assert_int_equal(c.on_panic, END_NONE);
	config_fini(&c);
	accept(&c, "-no-shutdown -pidfile p -D l -daemonize -nodefaults");
	assert_int_equal(c.on_shutdown, END_PAUSE);
	assert_string_equal(c.pid_file, "p");
	assert_string_equal(c.log_file, "l");
	assert_true(c.daemonize);
	assert_true(list_empty(&c.drives) && list_empty(&c.serials) && list_empty(&c.monitors));
	config_fini(&c);
	refuse("-action panic=foo", "-action panic=foo: Parameter 'panic' does not accept value "
				    "'foo'");
	refuse("-trace foo", "-trace foo: there is no trace area 'foo' (see -trace help)");
}

static void devices_keep_their_properties(void **state)
{
	struct device_config *d;
	struct config c;

	accept(&c, "-device virtio-blk-pci,drive=d,id=disk0,bootindex=1");
	d = list_entry(c.devices.next, struct device_config, link);
	assert_string_equal(d->driver, "virtio-blk-pci");
	assert_string_equal(d->id, "disk0");
	assert_int_equal(d->props.n, 2);
	assert_string_equal(opts_get(&d->props, "bootindex"), "1");
	config_fini(&c);
	refuse("-device foo,help", "-device foo,help: 'foo' is not a valid device model name");
	refuse("-device x,id=1", "-device x,id=1: Parameter 'id' expects an identifier");
}

/* Write text to a file, read it as configuration, and remove it. */
static int read_config(struct config *c, const char *text, struct error *err)
{
	char path[] = "/tmp/options-XXXXXX";
	int fd = mkstemp(path), ret;

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	config_init(c);
	*err = (struct error){0};
	ret = config_read_file(c, path, err);
	unlink(path);
	if (ret == 0)
		ret = config_finish(c, err);
	return ret;
}

static void a_file_has_a_section_for_each_option(void **state)
{
	struct error err;
	struct config c;

	assert_int_equal(read_config(&c,
				     "# a machine\n"
				     "[machine]\n  type = \"pc\"\n  accel = \"kvm\"\n\n"
				     "[memory]\n  size = \"256M\"\n"
				     "[smp-opts]\ncpus=2\n"
				     "[drive \"disk\"]\n  file = \"a,b\"\n  if = \"virtio\"\n"
				     "[boot-opts]\n  order = \"c\"\n",
				     &err),
			 0);
	assert_int_equal(c.ram_bytes, 256 * MiB);
	assert_int_equal(c.cpus, 2);
	assert_string_equal(drive(&c, "disk")->file, "a,b");
	assert_int_equal(drive(&c, "disk")->interface, DRIVE_IF_VIRTIO);
	assert_string_equal(c.boot_order, "c");
	config_fini(&c);
}

static void bad_files_are_refused_with_the_line(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"[drive]\n\n  foo = \"1\"\n", ":1: [drive]: Must specify either driver or file"},
		{"[object \"s\"]\nqom-type = \"x\"\n",
		 ":1: [object]: Parameter 'qom-type' does not accept value 'x'"},
		{"[nosuch]\n", ":1: there is no group 'nosuch'"},
		{"[hda]\n", ":1: there is no group 'hda'"},
		{"x = \"1\"\n", ":1: no group defined"},
		{"\n[drive\n", ":2: expected ']' at the end"},
		{"[drive \"x]\n", ":1: expected '\"' after the id"},
		{"[drive]\nfile = \"x\n", ":2: expected '\"' at the end"},
		{"[drive]\nfile\n", ":2: parse error: expected key = \"value\""},
	};
	struct error err;
	struct config c;

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		assert_true(read_config(&c, cases[i].text, &err) < 0);
		if (!strstr(err.text, cases[i].message))
			fail_msg("case %u: %s", i, err.text);
		config_fini(&c);
	}
	refuse("-readconfig nosuch",
	       "-readconfig nosuch: Could not open 'nosuch': No such file or directory");
}

static void lists_survive_a_round_trip_through_text(void **state)
{
	struct error err;
	struct opts a;
	char *text;

	assert_int_equal(opts_parse(&a, "x,,y,b=1,,2,bare,nobare", "a", &err), 0);
	assert_string_equal(opts_get(&a, "a"), "x,y");
	assert_string_equal(opts_get(&a, "b"), "1,2");
	assert_string_equal(opts_get(&a, "bare"), "off");
	text = opts_text(&a, "a");
	assert_string_equal(text, "x,,y,b=1,,2,bare,nobare");
	free(text);
	opts_fini(&a);
	assert_int_equal(opts_parse(&a, "=1", NULL, &err), -EINVAL);
	assert_int_equal(opts_parse(&a, ",b=1", "a", &err), 0); /* a is empty */
	text = opts_text(&a, "a");
	assert_string_equal(text, "a=,b=1");
	free(text);
	opts_fini(&a);
	assert_int_equal(opts_parse(&a, "a=b=c", "a", &err), 0);
	text = opts_text(&a, "a");
	assert_string_equal(text, "a=b=c");
	free(text);
	opts_fini(&a);
}

static void a_list_has_parts_and_later_values_win(void **state)
{
	struct error err;
	struct opts a, b;

	assert_int_equal(opts_parse(&a, "file.x=1,y=2,file.x=3", NULL, &err), 0);
	opts_set(&a, "y", "4,");
	assert_string_equal(opts_get(&a, "y"), "4,");
	assert_int_equal(opts_append(&a, "z", NULL, &err), 0);
	opts_sub(&a, "file.", &b);
	assert_int_equal(b.n, 2);
	assert_string_equal(opts_get(&b, "x"), "3");
	opts_fini(&b);
	opts_fini(&a);
}

/* Every row of the table can be found, and says what it is. */
static void every_option_has_help(void **state)
{
	AUTO_FREE char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	options_help(to);
	fclose(to);
	for (const struct option *o = options; o->name; o++) {
		AUTO_FREE char *dashed = xasprintf("\n-%s", o->name);

		assert_ptr_equal(option_find(o->name), o);
		if (!strstr(text, dashed))
			fail_msg("-%s is not in the help text", o->name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_command_line_is_a_machine_with_an_empty_cd_drive),
		cmocka_unit_test(options_may_have_one_dash_or_two),
		cmocka_unit_test(what_is_not_known_is_refused_by_name),
		cmocka_unit_test(memory_is_in_mebibytes_or_has_a_suffix),
		cmocka_unit_test(bad_memory_sizes_are_refused),
		cmocka_unit_test(cpus_are_grouped_into_cores),
		cmocka_unit_test(impossible_cpus_are_refused),
		cmocka_unit_test(only_kvm_and_the_pc_are_there),
		cmocka_unit_test(smbios_fields_are_kept_by_type),
		cmocka_unit_test(the_cpu_is_that_of_the_host),
		cmocka_unit_test(names_and_uuid_are_kept),
		cmocka_unit_test(hard_disks_have_their_places),
		cmocka_unit_test(secrets_are_kept_and_hidden_from_the_command_line),
		cmocka_unit_test(what_is_not_the_drives_is_the_images),
		cmocka_unit_test(drives_find_free_places),
		cmocka_unit_test(properties_of_drives_are_kept),
		cmocka_unit_test(snapshot_holds_for_all_drives_but_those_that_refuse),
		cmocka_unit_test(bad_drives_are_refused),
		cmocka_unit_test(boot_order_is_letters),
		cmocka_unit_test(kernel_options_belong_together),
		cmocka_unit_test(nographic_puts_serial_and_monitor_on_the_terminal),
		cmocka_unit_test(streams_are_kept_in_order),
		cmocka_unit_test(bad_streams_are_refused),
		cmocka_unit_test(a_card_and_a_network_are_there_unless_somebody_speaks_of_networks),
		cmocka_unit_test(networks_are_checked),
		cmocka_unit_test(files_that_may_be_read_only_are_if_that_will_do),
		cmocka_unit_test(vnc_displays_have_names),
		cmocka_unit_test(displays_are_understood),
		cmocka_unit_test(time_base_is_understood),
		cmocka_unit_test(actions_say_how_it_ends),
		cmocka_unit_test(devices_keep_their_properties),
		cmocka_unit_test(a_file_has_a_section_for_each_option),
		cmocka_unit_test(bad_files_are_refused_with_the_line),
		cmocka_unit_test(lists_survive_a_round_trip_through_text),
		cmocka_unit_test(a_list_has_parts_and_later_values_win),
		cmocka_unit_test(every_option_has_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
