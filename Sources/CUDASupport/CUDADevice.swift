/// One GPU: what it is called and what it has.
public struct CUDADevice: Sendable {
  /// The oldest GPUs that Nibble's kernels run on (Ampere: cp.async and BF16 matrix instructions).
  public static let oldestComputeCapability = ComputeCapability(8, 0)

  public let ordinal: Int
  public let name: String
  /// Bytes of GPU memory.
  public let memoryBytes: Int
  public let computeCapability: ComputeCapability
  public let multiprocessorCount: Int
  /// Bytes of level-2 cache.
  public let l2Bytes: Int
  /// Bytes of shared memory that one block may ask for.
  public let sharedMemoryPerBlock: Int
  /// Whether memory can be taken and freed in stream order.
  public let hasMemoryPools: Bool
  let driver: CUDADriver
  let handle: Int32

  init(driver: CUDADriver, ordinal: Int) throws(CUDAError) {
    let functions = driver.functions
    var handle: Int32 = 0
    try driver.check(functions.deviceGet(&handle, Int32(ordinal)), "cuDeviceGet")
    var name = [CChar](repeating: 0, count: 256)
    try driver.check(functions.deviceGetName(&name, 256, handle), "cuDeviceGetName")
    var bytes = 0
    try driver.check(functions.deviceTotalMemory(&bytes, handle), "cuDeviceTotalMem")
    func attribute(_ number: Int32) throws(CUDAError) -> Int {
      var value: Int32 = 0
      try driver.check(functions.deviceGetAttribute(&value, number, handle), "cuDeviceGetAttribute")
      return Int(value)
    }
    self.driver = driver
    self.ordinal = ordinal
    self.handle = handle
    self.name = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    memoryBytes = bytes
    // Numbers: cuda.h, CUdevice_attribute.
    computeCapability = ComputeCapability(try attribute(75), try attribute(76))
    multiprocessorCount = try attribute(16)
    l2Bytes = try attribute(38)
    sharedMemoryPerBlock = try attribute(97)
    hasMemoryPools = try attribute(115) != 0
  }

  /// Whether a kernel may be set up while the one before it drains (programmatic dependent launch).
  public var launchesDependents: Bool { computeCapability >= ComputeCapability(9, 0) }

  /// Why Nibble's kernels can't run here; nil if they can.
  public var unavailability: CUDAUnavailable? {
    computeCapability >= Self.oldestComputeCapability
      ? nil : .deviceTooOld(name: name, found: computeCapability, needed: Self.oldestComputeCapability)
  }
}
