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

extension DeviceCase {
  /// A case over a layout of records; without one it fails for the layout's reason.
  init<Layout: Sendable>(
    name: String, layout: () throws -> Layout, instances: (Layout) -> [KernelInstance],
    run: @escaping @Sendable (Layout, DeviceBench) throws -> CaseResult
  ) {
    self.name = name
    do {
      let layout = try layout()
      self.instances = instances(layout)
      self.run = { try run(layout, $0) }
    } catch {
      let reason = "\(error)"
      self.instances = []
      self.run = { _ in CaseResult(passed: false, failure: reason) }
    }
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

  /// Of a comparison with the textbook.
  init(_ error: (all: Double, worstRow: Double), limit: Double) {
    self.init(
      passed: error.all <= limit,
      failure: "relative error \(error.all.scientific), expected at most \(limit.scientific)")
    line.addScientific("error", error.all)
    line.addScientific("worst_row", error.worstRow)
  }
}
