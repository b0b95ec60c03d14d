#include "fleet/gpu_family.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/error.hpp"
#include "base/text.hpp"

namespace moevar::fleet {

namespace {

// Grade of every value: M measured (public raw data), P published (papers, documentation), F fitted
// to those, A assumed.
constexpr std::array<GpuFamily, 6> kFamilies{{
    {
        .name = "v100-sxm2",
        .f_max_mhz = 1530,          // M
        .f_min_mhz = 405,           // M
        .f_step_mhz = 7.5,          // M
        .cap_min_w = 150,           // A
        .cap_max_w = 300,           // P
        .tdp_w = 300,               // P
        .v_knee_mhz = 900,          // F, weak
        .v_rise = 0.22,             // as v_knee_mhz
        .v_exponent = 1.6,          // as v_knee_mhz
        .base_w = 38,               // A
        .leakage_w = 34,            // A, slope over temperature M
        .theta_per_c = 0.015,       // A, gives 0.66 W/C (data 0.60 to 0.73 M)
        .dynamic_w_mhz = 0.1222,    // F, SGEMM
        .memory_pj_byte = 30,       // A
        .r_th_c_w = 0.140,          // M, (65.6 - 32) C / (297 - 63) W
        .t_in_c = 24,               // A
        .t_in_sd_c = 3.5,           // M, Longhorn
        .neighbour_c_w = 0.030,     // F; 0.041 M is too wide with t_in_sd_c
        .tau1_s = 2,                // A
        .tau2_s = 30,               // A; plateau within 60 s P
        .r1_share = 0.35,           // A
        .t_op_c = 83,               // A, 82 seen M
        .t_hw_c = 87,               // A
        .t_shut_c = 90,             // A
        .sensor_window_ms = 10,     // P, arXiv:2312.02741
        .sensor_period_ms = 20,     // P
        .margin = 0.010,            // M
        .peak_over_cap = 0.02,      // M; 0.07 p95, 0.14 highest
        .flop_per_clock = 10'027,   // M, FP32: 2 * 25536^3 / 2.436 s / 1363.4 MHz
        .memory_gb_s = 0.92 * 900,  // A, part of peak
        .intra_gb_s = 62,           // A, 0.41 of NVLink 2's 150, h100-sxm5's part
        .inter_gb_s = 6.25,         // A, 4 EDR a node
        .intra_latency_us = 42,     // A, as h100-sxm5
        .inter_latency_us = 52,     // A, as h100-sxm5
    },
    {
        .name = "a100-pcie",
        .f_max_mhz = 1410,          // M
        .f_min_mhz = 210,           // M
        .f_step_mhz = 15,           // A
        .cap_min_w = 150,           // M: the range used
        .cap_max_w = 300,           // M
        .tdp_w = 300,               // P
        .v_knee_mhz = 900,          // F, rms 0.9 %
        .v_rise = 0.382,            // as v_knee_mhz
        .v_exponent = 2.21,         // as v_knee_mhz
        .base_w = 35,               // A
        .leakage_w = 18,            // A
        .theta_per_c = 0.015,       // A
        .dynamic_w_mhz = 0.0846,    // F, FP64 Pi solver
        .memory_pj_byte = 25,       // A
        .r_th_c_w = 0.130,          // A
        .t_in_c = 25,               // A
        .t_in_sd_c = 2,             // A, a good room
        .neighbour_c_w = 0.010,     // A
        .tau1_s = 2,                // A
        .tau2_s = 30,               // A
        .r1_share = 0.35,           // A
        .t_op_c = 85,               // P
        .t_hw_c = 89,               // P
        .t_shut_c = 92,             // P
        .sensor_window_ms = 25,     // P, arXiv:2312.02741
        .sensor_period_ms = 100,    // P
        .margin = 0.010,            // M, 0.4 to 1.3 %
        .peak_over_cap = 0.02,      // A
        .flop_per_clock = 209'200,  // P, BF16: 295 TF at 1410 MHz, on SXM
        .memory_gb_s = 1690,        // M, BabelStream
        .intra_gb_s = 20,           // A, PCIe 4
        .inter_gb_s = 12.5,         // A, 4 HDR a node
        .intra_latency_us = 42,     // A, as h100-sxm5
        .inter_latency_us = 52,     // A, as h100-sxm5
    },
    {
        .name = "a100-sxm4",
        .f_max_mhz = 1410,           // P
        .f_min_mhz = 210,            // P
        .f_step_mhz = 15,            // A
        .cap_min_w = 100,            // P
        .cap_max_w = 400,            // P
        .tdp_w = 400,                // P
        .v_knee_mhz = 900,           // F, by analogy with a100-pcie
        .v_rise = 0.38,              // as v_knee_mhz
        .v_exponent = 2.2,           // as v_knee_mhz
        .base_w = 60,                // A
        .leakage_w = 24,             // A
        .theta_per_c = 0.015,        // A
        .dynamic_w_mhz = 0.191,      // F, BF16, 1228 MHz at 400 W
        .memory_pj_byte = 25,        // A
        .r_th_c_w = 0.100,           // A
        .t_in_c = 25,                // A
        .t_in_sd_c = 2,              // A, a good room
        .neighbour_c_w = 0.020,      // A
        .tau1_s = 2,                 // A
        .tau2_s = 30,                // A
        .r1_share = 0.35,            // A
        .t_op_c = 85,                // P
        .t_hw_c = 89,                // P
        .t_shut_c = 92,              // P
        .sensor_window_ms = 25,      // P, arXiv:2312.02741
        .sensor_period_ms = 100,     // P
        .margin = 0.005,             // A
        .peak_over_cap = 0.02,       // A
        .flop_per_clock = 209'200,   // P, BF16: 295 TF at 1410 MHz
        .memory_gb_s = 0.92 * 2039,  // A, part of peak
        .intra_gb_s = 123,           // A, 0.41 of NVLink 3's 300
        .inter_gb_s = 25,            // A, 8 HDR a node
        .intra_latency_us = 42,      // A, as h100-sxm5
        .inter_latency_us = 52,      // A, as h100-sxm5
    },
    {
        .name = "h100-sxm5",
        .f_max_mhz = 1980,                  // P
        .f_min_mhz = 345,                   // P
        .f_step_mhz = 15,                   // A
        .cap_min_w = 200,                   // P
        .cap_max_w = 700,                   // P
        .tdp_w = 700,                       // P
        .v_knee_mhz = 1154,                 // F, rms 0.18 %
        .v_rise = 0.185,                    // as v_knee_mhz
        .v_exponent = 1.97,                 // as v_knee_mhz
        .base_w = 34,                       // F, memory partly inside leakage_w
        .leakage_w = 70,                    // A
        .theta_per_c = 0.015,               // A
        .dynamic_w_mhz = 0.368,             // A, BF16; probably 2 to 8 % low
        .memory_pj_byte = 22,               // P, h200-sxm's
        .r_th_c_w = 0.060,                  // A
        .t_in_c = 26,                       // A
        .t_in_sd_c = 2,                     // A, a good room
        .neighbour_c_w = 0.0071,            // A; B200 0.008 P
        .tau1_s = 2,                        // A
        .tau2_s = 35,                       // A
        .r1_share = 0.40,                   // A
        .t_op_c = 87,                       // P
        .t_hw_c = 89,                       // P
        .t_shut_c = 92,                     // P
        .sensor_window_ms = 25,             // P, arXiv:2312.02741
        .sensor_period_ms = 100,            // P
        .margin = 0.005,                    // A
        .peak_over_cap = 0.02,              // A
        .flop_per_clock = 0.935 * 540'672,  // peak P, BF16; 0.92 to 0.95 of it A
        .memory_gb_s = 0.92 * 3350,         // A, part of peak
        .intra_gb_s = 185,                  // P, NCCL EP 0.1.0 combine, 8 GPUs
        .inter_gb_s = 50,                   // P, DeepEP: CX7
        .intra_latency_us = 42,  // F, DeepEP EP8: 77 us - 7/8 * 128 * 8 * 7168 B / 185 GB/s
        .inter_latency_us = 52,  // F, DeepEP EP256: 194 us - 248/256 * 128 * 8 * 7168 B / 50 GB/s
    },
    {
        .name = "h200-sxm",
        .f_max_mhz = 1980,                  // P
        .f_min_mhz = 345,                   // P
        .f_step_mhz = 15,                   // A
        .cap_min_w = 200,                   // P
        .cap_max_w = 700,                   // P
        .tdp_w = 700,                       // P
        .v_knee_mhz = 1154,                 // A, as h100-sxm5
        .v_rise = 0.185,                    // as v_knee_mhz
        .v_exponent = 1.97,                 // as v_knee_mhz
        .base_w = 40,                       // A
        .leakage_w = 70,                    // A
        .theta_per_c = 0.015,               // A
        .dynamic_w_mhz = 0.368,             // A, as h100-sxm5
        .memory_pj_byte = 22.5,             // P, Triad minus DGEMM
        .r_th_c_w = 0.060,                  // A
        .t_in_c = 26,                       // A
        .t_in_sd_c = 2,                     // A, a good room
        .neighbour_c_w = 0.0071,            // A; B200 0.008 P
        .tau1_s = 2,                        // A
        .tau2_s = 35,                       // A
        .r1_share = 0.40,                   // A
        .t_op_c = 87,                       // P
        .t_hw_c = 89,                       // P
        .t_shut_c = 92,                     // P
        .sensor_window_ms = 25,             // P, arXiv:2312.02741
        .sensor_period_ms = 100,            // P
        .margin = 0.005,                    // A
        .peak_over_cap = 0.02,              // A
        .flop_per_clock = 0.935 * 540'672,  // peak P, BF16; 0.92 to 0.95 of it A
        .memory_gb_s = 4890,                // P, Triad
        .intra_gb_s = 185,                  // P, as h100-sxm5
        .inter_gb_s = 50,                   // P, as h100-sxm5
        .intra_latency_us = 42,             // F, as h100-sxm5
        .inter_latency_us = 52,             // F, as h100-sxm5
    },
    {
        .name = "mi300x",
        .f_max_mhz = 2100,           // P
        .f_min_mhz = 132,            // A
        .f_step_mhz = 1,             // P
        .cap_min_w = 300,            // A
        .cap_max_w = 750,            // P
        .tdp_w = 750,                // P
        .v_knee_mhz = 900,           // A
        .v_rise = 0.45,              // as v_knee_mhz
        .v_exponent = 1.8,           // as v_knee_mhz
        .base_w = 95,                // A
        .leakage_w = 75,             // A
        .theta_per_c = 0.015,        // A
        .dynamic_w_mhz = 0.437,      // F, BF16, 1207 MHz at 750 W
        .memory_pj_byte = 20,        // A
        .r_th_c_w = 0.055,           // A
        .t_in_c = 28,                // A
        .t_in_sd_c = 2,              // A, a good room
        .neighbour_c_w = 0.0133,     // A
        .tau1_s = 2,                 // A
        .tau2_s = 35,                // A
        .r1_share = 0.40,            // A
        .t_op_c = 100,               // A
        .t_hw_c = 105,               // A
        .t_shut_c = 110,             // A
        .sensor_window_ms = 25,      // A
        .sensor_period_ms = 100,     // A
        .margin = 0.005,             // A
        .peak_over_cap = 0.02,       // A
        .flop_per_clock = 586'600,   // P, BF16: 708 TF at 1207 MHz
        .memory_gb_s = 0.92 * 5300,  // A, part of peak
        .intra_gb_s = 184,           // A, 0.41 of xGMI's 448
        .inter_gb_s = 50,            // A, 8 NDR a node
        .intra_latency_us = 42,      // A, as h100-sxm5
        .inter_latency_us = 52,      // A, as h100-sxm5
    },
}};

}  // namespace

std::span<const GpuFamily> gpu_families() noexcept { return kFamilies; }

const GpuFamily& find_family(std::string_view name) {
  const auto* const found = std::ranges::find(kFamilies, name, &GpuFamily::name);
  if (found == kFamilies.end()) {
    std::array<std::string_view, kFamilies.size()> names;
    std::ranges::transform(kFamilies, names.begin(), &GpuFamily::name);
    throw InputError(fmt::format(R"(no GPU preset is named "{}"; nearest: "{}"; there are {})",
                                 printable(name), nearest(name, names), one_of(names)));
  }
  return *found;
}

}  // namespace moevar::fleet
