import CUDASupport

/// One check or one timing, by name.
struct DeviceCase: Sendable {
  let name: String
  /// Kernels it needs; all cases' are compiled at once before the first runs.
  let instances: [KernelInstance]
  let run: @Sendable (DeviceBench) throws -> CaseResult

  /// The whole grid; with `quick`, a part that covers every kernel.
  static func all(quick: Bool) -> [DeviceCase] {
    StoreChecks.all(quick: quick) + DequantizeChecks.all(quick: quick) + DecodeChecks.all(quick: quick)
      + LatentStoreChecks.all(quick: quick) + LatentChecks.all(quick: quick) + StoreTimings.all(quick: quick)
      + DecodeTimings.all(quick: quick) + LatentTimings.all(quick: quick)
  }

  /// A seed of the case's own, the same in every run.
  static func seed(_ name: String) -> UInt64 {
    name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }
}

/// What a case found.
struct CaseResult {
  var passed: Bool
  /// Why not, in words.
  var failure: String?
  var line = JSONLine()
  var row: TimingRow?

  init(passed: Bool, failure: String? = nil) {
    self.passed = passed
    self.failure = passed ? nil : failure
  }
}
