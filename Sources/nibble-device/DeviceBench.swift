import CPUBackend
import CUDASupport
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The GPU, its kernels and the CPU's workers, shared by all cases of a run.
final class DeviceBench {
  let library: KernelLibrary
  let stream: CUDAStream
  let workers = WorkerPool(threadCount: WorkerPool.availableProcessorCount)
  let options: DeviceOptions
  private var measured: Yardsticks?
  private let timerReplays = 15

  init(_ options: DeviceOptions) throws(CUDAError) {
    let library = try KernelLibrary.open(device: options.device)
    self.options = options
    stream = try CUDAStream(library.context)
    self.library = library
  }

  var context: CUDAContext { library.context }
  var timer: GraphTimer { GraphTimer(replays: timerReplays) }

  /// Copy and read bandwidth, measured at the first wish.
  func yardsticks() throws(CUDAError) -> Yardsticks {
    if let measured { return measured }
    let yardsticks = try Yardsticks(library: library, stream: stream, timer: timer)
    measured = yardsticks
    return yardsticks
  }

  /// Runs the cases in order and prints a line for each. True if all passed.
  func run(_ cases: [DeviceCase]) throws -> Bool {
    let device = context.device
    var head = JSONLine()
    head.add("device", device.name)
    head.add("architecture", library.architecture)
    head.add("multiprocessors", device.multiprocessorCount)
    head.add("compiler", "\(library.compiler.version)")
    head.add("sources", String(library.sources.digest.prefix(16)))
    head.add("cases", cases.count)
    print(head.text)
    let unusable = compile(Set(cases.flatMap(\.instances)).sorted { "\($0)" < "\($1)" })

    var rows: [TimingRow] = []
    var failures: [String] = []
    for item in cases {
      var result: CaseResult
      if let reason = item.instances.lazy.compactMap({ unusable[$0] }).first {
        result = CaseResult(passed: false, failure: reason)
      } else {
        do { result = try item.run(self) } catch { result = CaseResult(passed: false, failure: "\(error)") }
      }
      var line = JSONLine()
      line.add("case", item.name)
      line.add("passed", result.passed)
      if let failure = result.failure {
        line.add("failure", failure)
        failures.append("\(item.name): \(failure)")
      }
      line.append(result.line)
      print(line.text)
      // A run that is cut off should have told what it found.
      fflush(nil)
      if let row = result.row { rows.append(row) }
    }
    printResources(Set(cases.flatMap(\.instances)))
    if let yardsticks = measured {
      var line = JSONLine()
      line.add("copy_gb_per_s", yardsticks.copy, digits: 0)
      line.add("read_gb_per_s", yardsticks.read, digits: 0)
      print(line.text)
    }
    if !options.jsonOnly {
      if let yardsticks = measured { ResultTable.print(rows, yardsticks: yardsticks, device: device.name) }
      print("\(cases.count - failures.count) of \(cases.count) cases passed")
      for failure in failures { print("FAILED \(failure)") }
    }
    return failures.isEmpty
  }

  /// Compiles and loads on all cores; the reason for each kernel that can't be had.
  private func compile(_ instances: [KernelInstance]) -> [KernelInstance: String] {
    let failures = Mutex<[KernelInstance: String]>([:])
    let library = library
    workers.run(instances.count) { index, _ in
      do { _ = try library.kernel(instances[index]) } catch {
        failures.withLock { $0[instances[index]] = "\(error)" }
      }
    }
    return failures.withLock { $0 }
  }

  /// What each kernel needs of a multiprocessor; dynamic shared memory is in the lines of the timings.
  private func printResources(_ instances: Set<KernelInstance>) {
    for instance in instances.sorted(by: { "\($0)" < "\($1)" }) {
      guard let kernel = try? library.kernel(instance), let output = try? library.compiled(instance) else { continue }
      let report = ResourceReport.parse(output.log).first { $0.kernel == instance.entry }
      var line = JSONLine()
      line.add("kernel", "\(instance)")
      line.add("registers", kernel.resources.registers)
      line.add("static_shared_bytes", kernel.resources.sharedBytes)
      line.add("local_bytes", kernel.resources.localBytes)
      if let report { line.add("spill_bytes", max(report.spillStoreBytes, report.spillLoadBytes)) }
      print(line.text)
    }
  }
}
