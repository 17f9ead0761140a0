// SPDX-License-Identifier: GPL-2.0
// One zone in the kernel's own powercap class, where intel_rapl would have it, for a machine without RAPL: exactly 20 W
// since it booted. For tests/systemd only; never part of what edgeprof ships.
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/powercap.h>

#define RANGE_UJ (61ULL << 32)

static struct powercap_control_type *type;
static struct powercap_zone *zone;

static int energy(struct powercap_zone *z, u64 *uj)
{
	u64 all = ktime_get_ns() / 50;	/* 20 W: 20 uJ in each microsecond */

	div64_u64_rem(all, RANGE_UJ, uj);
	return 0;
}

static int range(struct powercap_zone *z, u64 *uj)
{
	*uj = RANGE_UJ;
	return 0;
}

static int release(struct powercap_zone *z)
{
	return 0;
}

static const struct powercap_zone_ops ops = {
	.get_energy_uj = energy,
	.get_max_energy_range_uj = range,
	.release = release,
};

/* A zone without constraints is refused. */
static int get(struct powercap_zone *z, int id, u64 *value)
{
	*value = 0;
	return 0;
}

static int set(struct powercap_zone *z, int id, u64 value)
{
	return -EPERM;
}

static const struct powercap_zone_constraint_ops constraint = {
	.set_power_limit_uw = set,
	.get_power_limit_uw = get,
	.set_time_window_us = set,
	.get_time_window_us = get,
};

static int __init begin(void)
{
	type = powercap_register_control_type(NULL, "intel-rapl", NULL);
	if (IS_ERR(type))
		return PTR_ERR(type);
	zone = powercap_register_zone(NULL, type, "package-0", NULL, &ops, 1, &constraint);
	if (IS_ERR(zone)) {
		powercap_unregister_control_type(type);
		return PTR_ERR(zone);
	}
	return 0;
}

static void __exit end(void)
{
	powercap_unregister_zone(type, zone);
	powercap_unregister_control_type(type);
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A made-up RAPL package for tests");
