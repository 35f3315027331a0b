"""A site that speaks real protocols: PCS with battery, grid meter and building meter behind SunSpec Modbus TCP.

`python -m slurm_power.testing.simulated_site --config FILE` starts it. What is modelled is real behaviour of such
devices (dead-man timer, ramp, state of charge window, one-way efficiencies, scale factors, local mode, alarms);
voltages, currents and reactive power are not modelled and read as "not implemented".
"""
