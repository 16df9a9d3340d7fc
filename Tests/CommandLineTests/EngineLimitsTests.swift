import Testing

/// Flags beyond what a machine or a machine's integers hold: one sentence that names the flag, and nothing allocated.
@Suite struct EngineLimitsTests {
  @Test(arguments: [
    ("--max-total-tokens", "9223372036854775807"), ("--max-total-tokens", "900000000000"),
    ("--kv-cache-memory", "4000TiB"), ("--swap-space", "4000TiB"), ("--requests", "9223372036854775807"),
    ("--shared-prefix", "9223372036854775807"), ("--input-len", "100000000"), ("--arrival-rate", "1e-300"),
  ])
  func refusesWhatNoMachineHas(flag: String, value: String) throws {
    let run = try Command.run(["bench", "engine", "--input-len", "8", "--output-len", "2", flag, value])
    #expect(run.status == 64, "\(run.errors)")
    #expect(run.errors.contains(flag) && run.errors.contains("expected"))
  }
}
