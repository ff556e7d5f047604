/* The table of options: it drives parsing and the text of -help. */
#include "vmm/options.h"

#include "block/names.h"

/* Rows: plain text or none, a list of key=value, a text or flag kept as it is. */
#define PLAIN(n, a, h, fn, g)                                                                      \
	{                                                                                          \
		.name = (n), .arg = (a), .help = (h), .apply = (fn), .group = (g)                  \
	}
#define LIST(n, a, h, fn, g, i, k)                                                                 \
	{                                                                                          \
		.name = (n), .arg = (a), .help = (h), .apply = (fn), .group = (g), .implied = (i), \
		.keys = (k)                                                                        \
	}
#define STORE(n, a, h, fn, g, m)                                                                   \
	{                                                                                          \
		.name = (n), .arg = (a), .help = (h), .apply = (fn), .group = (g),                 \
		.member = offsetof(struct config, m)                                               \
	}

static const char *const group_titles[OPTION_GROUPS] = {
	[GROUP_STANDARD] = "Standard options",
	[GROUP_BLOCK] = "Block device options",
	[GROUP_DISPLAY] = "Display options",
	[GROUP_NETWORK] = "Network options",
	[GROUP_CHARDEV] = "Character device options",
	[GROUP_BOOT] = "Boot image or kernel specific",
	[GROUP_DEBUG] = "Debug/expert options",
};

static const char machine_keys[] = "type accel usb vmport hpet acpi pit graphics kernel-irqchip "
				   "kernel initrd append firmware mem-merge dump-guest-core";
static const char vnc_keys[] = "vnc id password to share websocket ipv4 ipv6 lossy non-adaptive "
			       "tls-creds sasl reverse audiodev password-secret";
static const char chardev_keys[] = "backend id path mux server wait append signal logfile";

const struct option options[] = {
	PLAIN("h", NULL, "display this help and exit", option_help, GROUP_STANDARD),
	PLAIN("help", NULL, "display this help and exit", option_help, GROUP_STANDARD),
	PLAIN("version", NULL, "display version information and exit", option_version,
	      GROUP_STANDARD),
	LIST("machine", "[type=]name[,prop[=value][,...]]",
	     "selects emulated machine ('-machine help' for list)\n"
	     "property accel=kvm selects the accelerator\n"
	     "kernel=, initrd=, append=, firmware= as the options of these names\n"
	     "mem-merge=on|off lets the host merge equal pages of memory (default: off)\n"
	     "dump-guest-core=on|off has guest memory in core dumps (default: on)",
	     option_machine, GROUP_STANDARD, "type", machine_keys),
	LIST("M", "name[,prop[=value][,...]]", "as -machine", option_machine, GROUP_STANDARD,
	     "type", machine_keys),
	PLAIN("cpu", "model[,+flag][,-flag][,prop=value]",
	      "select CPU ('-cpu help' for list of models and flags); default: host\n"
	      "properties: flag=on|off, family=, model=, stepping=, level=, xlevel=, vendor=,\n"
	      "model-id=, phys-bits=, host-phys-bits=, check=, enforce=, kvm=, pmu=, migratable=,\n"
	      "and what Windows makes use of, as far as the host's kernel offers it: hv-relaxed,\n"
	      "hv-vapic, hv-spinlocks=, hv-time, hv-vpindex, hv-synic, hv-stimer, ... or\n"
	      "hv-passthrough",
	      option_cpu, GROUP_STANDARD),
	LIST("accel", "[accel=]accelerator", "select accelerator (kvm; use 'help' for a list)",
	     option_accel, GROUP_STANDARD, "accel", "accel kernel-irqchip"),
	PLAIN("enable-kvm", NULL, "use KVM, the only and default accelerator", option_enable_kvm,
	      GROUP_STANDARD),
	LIST("smp", "[[cpus=]n][,maxcpus=n][,sockets=n][,cores=n][,threads=n]",
	     "set the number of CPUs to 'n' [default=1] and how they are grouped; the guest\n"
	     "is told of maxcpus, of which those beyond 'n' are absent for good",
	     option_smp, GROUP_STANDARD, "cpus",
	     "cpus maxcpus sockets dies clusters cores threads"),
	LIST("m", "[size=]megs", "configure guest RAM [default=128M]", option_memory,
	     GROUP_STANDARD, "size", "size slots maxmem"),
	STORE("mem-path", "DIR",
	      "have guest memory in a nameless file in DIR (hugetlbfs: in its pages);\n"
	      "snapshots then stop the guest while they read or write memory",
	      option_text, GROUP_STANDARD, mem_path),
	STORE("mem-prealloc", NULL, "take all of guest memory from the host at the start",
	      option_flag, GROUP_STANDARD, mem_prealloc),
	LIST("device", "driver[,prop[=value][,...]]",
	     "add device (based on driver)\n"
	     "use '-device help' to print all possible drivers\n"
	     "use '-device driver,help' to print all possible properties",
	     option_device, GROUP_STANDARD, "driver", NULL),
	LIST("object", "secret,id=id,file=file|data=string[,format=raw|base64][,keyid=id,iv=iv]",
	     "a passphrase that -drive names by its id; encrypted disks without one wait\n"
	     "for it at the monitor's command 'cont'\n"
	     "also: rng-random,id=id[,filename=file] and rng-builtin,id=id, for virtio-rng-pci;\n"
	     "filter-dump,id=id,netdev=dev,file=file[,maxlen=len][,queue=all|rx|tx]\n"
	     "[,status=on|off] writes what passes a -netdev to a file, for tcpdump -r;\n"
	     "throttle-group,id=id[,limits.bps-total=n][,limits.iops-read-max=n][,...]: limits\n"
	     "that -drive throttling.group=id and -blockdev throttle share",
	     option_object, GROUP_STANDARD, "qom-type", NULL),
	PLAIN("global", "driver.property=value", "not available: give the property to -device",
	      option_global, GROUP_STANDARD),
	LIST("name", "[guest=]string1[,process=string2][,debug-threads=on|off]",
	     "set the name of the guest; string2 is the process name", option_name, GROUP_STANDARD,
	     "guest", "guest process debug-threads"),
	PLAIN("uuid", "%08x-%04x-%04x-%04x-%012x", "specify machine UUID", option_uuid,
	      GROUP_STANDARD),
	LIST("smbios",
	     "type=0[,vendor=str][,version=str][,date=str][,release=%d.%d]\n"
	     "       type=1[,manufacturer=str][,product=str][,version=str][,serial=str]\n"
	     "       [,uuid=uuid][,sku=str][,family=str]\n"
	     "       type=2[,manufacturer=str][,product=str][,version=str][,serial=str]\n"
	     "       [,asset=str][,location=str]\n"
	     "       type=3[,manufacturer=str][,version=str][,serial=str][,asset=str][,sku=str]\n"
	     "       type=4[,sock_pfx=str][,manufacturer=str][,version=str][,serial=str]\n"
	     "       [,asset=str][,part=str][,max-speed=n][,current-speed=n][,processor-id=n]\n"
	     "       type=8[,internal_reference=str][,external_reference=str]\n"
	     "       [,connector_type=n][,port_type=n]\n"
	     "       type=11[,value=str][,path=file]\n"
	     "       type=17[,loc_pfx=str][,bank=str][,manufacturer=str][,serial=str]\n"
	     "       [,asset=str][,part=str][,speed=n]\n"
	     "       type=41[,designation=str][,kind=str][,instance=n][,pcidev=id]",
	     "what the SMBIOS tables say of BIOS, machine, board, chassis, CPUs, connectors,\n"
	     "memory and onboard devices, and strings for whom it concerns",
	     option_smbios, GROUP_STANDARD, "", NULL),

	PLAIN("hda", "file", "use 'file' as hard disk 0 image", option_hard_disk, GROUP_BLOCK),
	PLAIN("hdb", "file", "use 'file' as hard disk 1 image", option_hard_disk, GROUP_BLOCK),
	PLAIN("hdc", "file", "use 'file' as hard disk 2 image", option_hard_disk, GROUP_BLOCK),
	PLAIN("hdd", "file", "use 'file' as hard disk 3 image", option_hard_disk, GROUP_BLOCK),
	PLAIN("cdrom", "file", "use 'file' as CD-ROM image", option_cdrom, GROUP_BLOCK),
	LIST("drive",
	     "[file=file][,if=ide|virtio|none][,index=i][,bus=n,unit=m]\n"
	     "       [,media=disk|cdrom][,format=f][,id=name][,serial=s][,readonly=on|off]\n"
	     "       "
	     "[,copy-on-read=on|off][,snapshot=on|off][,discard=ignore|unmap][,aio=threads|native|"
	     "io_uring]\n"
	     "       [,cache=writethrough|writeback|none|directsync|unsafe]\n"
	     "       [,werror=ignore|stop|report|enospc][,rerror=ignore|stop|report]\n"
	     "       [,detect-zeroes=on|off|unmap][,encrypt.key-secret=id]\n"
	     "       [[,bps=b]|[[,bps_rd=r][,bps_wr=w]]][[,iops=i]|[[,iops_rd=r][,iops_wr=w]]]\n"
	     "       [[,bps_max=bm]|[[,bps_rd_max=rm][,bps_wr_max=wm]]][,bps_max_length=s]\n"
	     "       [[,iops_max=im]|[[,iops_rd_max=irm][,iops_wr_max=iwm]]][,iops_size=is]\n"
	     "       [,group=g]",
	     "use 'file' as a drive image; other keys are options of its format, as\n"
	     "--image-opts of cowimg names them",
	     option_drive, GROUP_BLOCK, "", NULL),
	LIST("blockdev",
	     "[driver=]driver,node-name=name[,read-only=on|off][,auto-read-only=on|off]\n"
	     "          [,discard=ignore|unmap][,detect-zeroes=on|off|unmap]\n"
	     "          [,cache.direct=on|off][,cache.no-flush=on|off][,option=value][,...]\n"
	     "-blockdev file|host_device,filename=file[,locking=auto|on|off]\n"
	     "-blockdev qcow2|raw|luks,file=node[,backing=node]\n"
	     "-blockdev copy-on-read,file=node\n"
	     "-blockdev throttle,throttle-group=id,file=node\n"
	     "-blockdev null-co|null-aio[,size=n][,latency-ns=n][,read-zeroes=on|off]",
	     "an image that others and -device name by its node name; file= and backing=\n"
	     "take the name of a node or, as file.driver=..., what describes one.  Options\n"
	     "are those of --image-opts of cowimg, also as JSON",
	     option_blockdev, GROUP_BLOCK, "driver", NULL),
	PLAIN("snapshot", NULL, "write to temporary files instead of disk image files",
	      option_snapshot, GROUP_BLOCK),

	PLAIN("display", "none|vnc=display[,...]", "no display besides VNC", option_display,
	      GROUP_DISPLAY),
	PLAIN("nographic", NULL, "no display; first serial port and monitor on the terminal",
	      option_nographic, GROUP_DISPLAY),
	PLAIN("vga", "[std|none]", "select video card type", option_vga, GROUP_DISPLAY),
	LIST("vnc",
	     "none|[host]:number|unix:path[,id=name][,password=on|off]\n"
	     "     [,to=number][,share=allow-exclusive|force-shared|ignore]\n"
	     "     [,ipv4=on|off][,ipv6=on|off]\n"
	     "     [,websocket=on|[host:]port]",
	     "show the display to VNC clients, on TCP port 5900 + number; without a host\n"
	     "only to those on this machine.  With password=on nobody gets in until the\n"
	     "monitor has set one ('change vnc password' or 'set_password').  Given again:\n"
	     "the same screen there too",
	     option_vnc, GROUP_DISPLAY, "vnc", vnc_keys),

	LIST("netdev",
	     "user,id=str[,ipv4=on|off][,net=addr[/mask]][,host=addr]\n"
	     "         [,ipv6=on|off][,ipv6-net=addr[/int]][,ipv6-host=addr]\n"
	     "         [,restrict=on|off][,hostname=host][,dhcpstart=addr]\n"
	     "         [,dns=addr][,ipv6-dns=addr][,dnssearch=domain][,domainname=domain]\n"
	     "         [,tftp=dir][,tftp-server-name=name][,bootfile=f][,hostfwd=rule]\n"
	     "         [,guestfwd=rule]\n"
	     "-netdev tap,id=str[,fd=h][,fds=x:y:...:z][,ifname=name][,script=file]\n"
	     "         "
	     "[,downscript=dfile][,sndbuf=nbytes][,vnet_hdr=on|off][,queues=n][,vhost=off]\n"
	     "-netdev socket,id=str,listen=[host]:port|connect=host:port\n"
	     "         |mcast=maddr:port[,localaddr=addr]|udp=host:port,localaddr=host:port\n"
	     "-netdev hubport,id=str,hubid=n[,netdev=nd]",
	     "a network on the host's side that -device names by its id: one of the guest's\n"
	     "own with DHCP, DNS and TFTP that leads to the host's connections, with rules\n"
	     "[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport for the other direction;\n"
	     "a TAP interface, set up by 'script' (default=/etc/qemu-ifup, 'no' for none) and\n"
	     "'downscript'; other machines over TCP, multicast or UDP; or a port of a hub",
	     option_netdev, GROUP_NETWORK, "type", NULL),
	LIST("nic", "none|user|tap[,option][,...][,mac=macaddr][,model=e1000|virtio]",
	     "a network card connected to a network as of -netdev, or no card at all (the\n"
	     "default is an e1000 card and a 'user' network)",
	     option_nic, GROUP_NETWORK, "type", NULL),
	LIST("net",
	     "nic[,macaddr=mac][,model=e1000|virtio][,name=str][,addr=str]\n"
	     "-net none|user|tap[,option][,...]",
	     "a network card on hub 0, or a network as of -netdev on it ('model=?' for a list)",
	     option_net, GROUP_NETWORK, "type", NULL),

	LIST("chardev",
	     "stdio|file|pty|null|socket,id=id[,path=path][,mux=on|off]\n"
	     "         [,server=on|off][,wait=on|off]",
	     "a host character stream that -serial, -mon and -device name by its id",
	     option_chardev, GROUP_CHARDEV, "backend", chardev_keys),
	PLAIN("serial", "dev",
	      "redirect the serial port to char device 'dev': stdio, mon:stdio, file:path,\n"
	      "pty, unix:path[,server][,nowait], null, none, chardev:id",
	      option_serial, GROUP_CHARDEV),
	PLAIN("parallel", "none|null", "there is no parallel port", option_parallel, GROUP_CHARDEV),
	PLAIN("monitor", "dev", "redirect the monitor to char device 'dev'", option_monitor,
	      GROUP_CHARDEV),
	LIST("mon", "[chardev=]name[,mode=readline]", "a monitor on a -chardev", option_mon,
	     GROUP_CHARDEV, "chardev", "chardev mode"),
	PLAIN("debugcon", "dev", "redirect the debug port (0x402) to char device 'dev'",
	      option_debugcon, GROUP_CHARDEV),
	PLAIN("echr", "chr", "set terminal escape character instead of ctrl-a", option_echr,
	      GROUP_CHARDEV),

	LIST("boot",
	     "[order=drives][,once=drives][,menu=on|off]\n"
	     "      [,splash-time=ms][,reboot-timeout=ms][,strict=on|off]",
	     "'drives': hard disk (c), CD-ROM (d), network (n); there is no floppy (a)",
	     option_boot, GROUP_BOOT, "order", "order once menu splash-time reboot-timeout strict"),
	STORE("bios", "file", "set the filename for the BIOS", option_text, GROUP_BOOT, bios),
	PLAIN("L", "path", "add a directory to search for firmware", option_firmware_dir,
	      GROUP_BOOT),
	STORE("kernel", "bzImage", "use 'bzImage' as kernel image", option_text, GROUP_BOOT,
	      kernel),
	STORE("initrd", "file", "use 'file' as initial ram disk", option_text, GROUP_BOOT, initrd),
	STORE("append", "cmdline", "use 'cmdline' as kernel command line", option_text, GROUP_BOOT,
	      append),
	PLAIN("no-fd-bootchk", NULL, "there is no floppy boot signature check", option_nothing,
	      GROUP_BOOT),
	PLAIN("no-hpet", NULL, "there is no HPET", option_nothing, GROUP_BOOT),

	LIST("rtc", "[base=utc|localtime|datetime][,clock=host|rt|vm][,driftfix=none|slew]",
	     "set the RTC base and clock", option_rtc, GROUP_DEBUG, "base", "base clock driftfix"),
	STORE("loadvm", "tag", "start right away with a saved state", option_text, GROUP_DEBUG,
	      loadvm),
	STORE("S", NULL, "freeze CPU at startup (use 'c' to start execution)", option_flag,
	      GROUP_DEBUG, start_stopped),
	PLAIN("no-reboot", NULL, "exit instead of rebooting", option_no_reboot, GROUP_DEBUG),
	PLAIN("no-shutdown", NULL, "stop before shutdown", option_no_shutdown, GROUP_DEBUG),
	LIST("action",
	     "[reboot=reset|shutdown][,shutdown=poweroff|pause]\n"
	     "        [,panic=pause|shutdown|none]",
	     "what to do when the guest reboots, powers off or panics", option_action, GROUP_DEBUG,
	     "", "reboot shutdown panic"),
	STORE("pidfile", "file", "write PID to 'file'", option_text, GROUP_DEBUG, pid_file),
	STORE("daemonize", NULL, "run in the background once everything is set up", option_flag,
	      GROUP_DEBUG, daemonize),
	STORE("D", "logfile", "output log to logfile (default stderr)", option_text, GROUP_DEBUG,
	      log_file),
	PLAIN("trace", "area[,area...]", "switch on trace lines ('-trace help' for areas)",
	      option_trace, GROUP_DEBUG),
	PLAIN("readconfig", "file", "read configuration file", option_read_config, GROUP_DEBUG),
	STORE("nodefaults", NULL, "don't create default devices", option_flag, GROUP_DEBUG,
	      no_devices),
	PLAIN("no-user-config", NULL, "there are no configuration files read by default",
	      option_nothing, GROUP_DEBUG),
	{.name = NULL},
};

const struct option *option_find(const char *name)
{
	for (const struct option *o = options; o->name; o++)
		if (!strcmp(o->name, name))
			return o;
	return NULL;
}

static void help_row(FILE *to, const struct option *o)
{
	const char *line = o->help;
	int len = fprintf(to, "-%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");

	if (len > 15 || (o->arg && strchr(o->arg, '\n')))
		fprintf(to, "\n%16s", "");
	else
		fprintf(to, "%*s", 16 - len, "");
	for (;;) {
		int n = (int)strcspn(line, "\n");

		fprintf(to, "%.*s\n", n, line);
		if (!line[n])
			return;
		line += n + 1;
		fprintf(to, "%16s", "");
	}
}

void options_help(FILE *to)
{
	fprintf(to, "cowvm version " COWVM_VERSION "\n"
		    "usage: cowvm [options] [disk_image]\n\n"
		    "'disk_image' is a hard disk image for IDE hard disk 0\n");
	for (enum option_group g = 0; g < OPTION_GROUPS; g++) {
		fprintf(to, "\n%s:\n", group_titles[g]);
		for (const struct option *o = options; o->name; o++)
			if (o->group == g)
				help_row(to, o);
	}
}

int option_apply_opts(struct config *c, const struct option *o, const char *source,
		      const struct opts *opts, struct error *err)
{
	struct option_use use = {.option = o, .source = source, .opts = opts};
	int ret = o->keys && !opts_has(opts, "help") ? opts_check(opts, o->keys, err) : 0;

	assert(o->implied);
	return ret < 0 ? ret : o->apply(c, &use, err);
}

/* "key=value,..." or {"key": "value", ...} */
static int parse_opts(const struct option *o, const char *text, struct opts *opts,
		      struct error *err)
{
	AUTO_FREE char *json = NULL;
	int ret;

	if (*text != '{')
		return opts_parse(opts, text, *o->implied ? o->implied : NULL, err);
	json = xasprintf("json:%s", text);
	ret = name_parse_json(json, opts, err);
	explicit_bzero(json, strlen(json));
	return ret;
}

int option_apply(struct config *c, const struct option *o, const char *source, const char *text,
		 struct error *err)
{
	struct option_use use = {.option = o, .source = source, .text = text};
	struct opts opts;
	int ret;

	if (!o->implied)
		return o->apply(c, &use, err);
	ret = parse_opts(o, text, &opts, err);
	if (ret < 0)
		return ret;
	ret = option_apply_opts(c, o, source, &opts, err);
	opts_fini(&opts);
	return ret;
}
