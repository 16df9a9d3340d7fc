import CUDASupport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

// Checks Nibble's CUDA kernels against the CPU and times them. Exit codes: 0, 1 a case failed, 64 usage, 69 no usable GPU.
do {
  let options = try DeviceOptions(Array(CommandLine.arguments.dropFirst()))
  if options.showsHelp {
    print(DeviceOptions.help)
    exit(0)
  }
  let cases = DeviceCase.all(quick: options.isQuick).filter { options.matches($0.name) }
  if options.listsOnly {
    for item in cases { print(item.name) }
    exit(0)
  }
  if cases.isEmpty { throw DeviceOptions.Failure.nothingMatches(options.filters) }
  let bench = try DeviceBench(options)
  exit(try bench.run(cases) ? 0 : 1)
} catch let failure as DeviceOptions.Failure {
  Files.printError("nibble-device: \(failure)\n\(DeviceOptions.help)")
  exit(64)
} catch CUDAError.unavailable(let reason) {
  Files.printError("nibble-device: \(reason)")
  exit(69)
} catch {
  Files.printError("nibble-device: \(error)")
  exit(70)
}
