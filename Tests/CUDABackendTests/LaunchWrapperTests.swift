import CKernelSources
import CUDABackend
import CUDASupport
import FakeCUDADriver
import KVQuantization
import PagedCache
import Testing

/// Compiles nothing: the fake driver doesn't look into the machine code.
private struct EmptyCompiler: KernelCompiler {
  let version = CUDAVersion(13, 0)
  let options: [String] = []
  func canTarget(_ architecture: String) -> Bool { architecture == "sm_90a" }
  func compile(
    _ instance: KernelInstance, from sources: KernelSources, architecture: String
  ) throws(CUDAError) -> CompiledKernel {
    CompiledKernel(cubin: Array("\(instance)".utf8) + [0], log: "")
  }
}

/// What the wrappers hand to the driver, over a driver whose memory is the host's.
@Suite(.serialized) struct LaunchWrapperTests {
  /// The kernel's own constant, as the decode kernel of 16 rows would have it.
  nonisolated(unsafe) private static let information: UnsafeMutablePointer<nb_decode_information> = {
    let memory = UnsafeMutablePointer<nb_decode_information>.allocate(capacity: 1)
    memory.initialize(
      to: nb_decode_information(
        threads: 384, shared_bytes: 221_256, rows: 16, warps: 12, stages: 3, step_tokens: 32,
        layout_version: NB_KERNEL_LAYOUT_VERSION, teams: 2))
    return memory
  }()

  private func open() throws -> KernelLibrary {
    FakeDriver.reset {
      $0.globals["nb_decode_configuration"] = (
        UInt64(UInt(bitPattern: Self.information)), MemoryLayout<nb_decode_information>.size
      )
      $0.argumentByteCount = MemoryLayout<nb_decode_arguments>.size
    }
    return try KernelLibrary(
      context: try FakeDriver.context(), compiler: EmptyCompiler(), sources: .embedded, cache: nil)
  }

  private func layout() throws -> MHALayout {
    try MHALayout(kvHeadCount: 4, headDimension: 128, pageSize: 64, recipeK: .nvfp4, recipeV: .fp8E4M3)
  }

  @Test func aDecodeLaunchSaysWhatTheCallSays() throws {
    let library = try open()
    let stream = try CUDAStream(library.context)
    let plan = try PagedDecode(
      PagedDecode.Configuration(
        layout: try layout(), queryHeadCount: 64, softmaxScale: 0.25, maximumBatch: 3, maximumContextLength: 10_000,
        splitting: .init(target: 33, minimumTokens: 1024)), library: library, on: stream)
    // Ten splits a request at most, one row tile of 16 rows, 128 values and two sums each; two counters of the launch and one a
    // request and head.
    let splits = 3 * 10
    #expect(plan.workspaceBytes == splits * 4 * 16 * 130 * 4 + (2 + 3 * 4) * 4)
    var call = PagedDecode.Call(
      queries: 0x1000, output: 0x2000, cache: 0x3000, pageStride: 4096, pageTable: 0x4000, pageTableStride: 160,
      contextLengths: 0x5000, batch: 2, scales: DecodeScales(key: 0.5, value: 0.125))
    call.logSumExp = 0x6000
    call.outputStride = 9000
    try plan.run(call, on: stream)

    let launch = try #require(FakeDriver.state.withLock { $0.launches.last })
    #expect(launch.shape == [132 * UInt32(2048 / 384), 1, 1, 384, 1, 1, 221_256])
    let arguments = launch.argument.withUnsafeBytes { $0.loadUnaligned(as: nb_decode_arguments.self) }
    #expect(arguments.queries == 0x1000 && arguments.output == 0x2000 && arguments.cache == 0x3000)
    #expect(arguments.page_table == 0x4000 && arguments.context_lengths == 0x5000 && arguments.log_sum_exp == 0x6000)
    #expect(arguments.query_stride == 64 * 128 && arguments.output_stride == 9000 && arguments.page_stride == 4096)
    #expect(arguments.page_table_stride == 160 && arguments.page_shift == 6 && arguments.batch == 2)
    #expect(arguments.kv_heads == 4 && arguments.group == 16 && arguments.query_length == 1)
    #expect(arguments.query_type == 1 && arguments.output_type == 1)
    #expect(arguments.target_splits == 33 && arguments.minimum_split == 1024)
    #expect(arguments.softmax_scale == 0.25 && arguments.key_scale == 0.5 && arguments.value_scale == 0.125)
    // The tickets start at zero.
    let tickets = try #require(UnsafePointer<UInt32>(bitPattern: UInt(arguments.counters)))
    #expect(UnsafeBufferPointer(start: tickets, count: 2 + 3 * 4).allSatisfy { $0 == 0 })
    #expect(FakeDriver.state.withLock { $0.memory[arguments.workspace] } == splits * 4 * 16 * 130 * 4)

    call.batch = 4
    #expect(throws: CUDAError.invalidPlan("a batch of 4 requests; the plan is for 1 to 3")) {
      try plan.run(call, on: stream)
    }
    FakeDriver.state.withLock { $0.failing["launch"] = 701 }
    call.batch = 2
    let error = #expect(throws: CUDAError.self) { try plan.run(call, on: stream) }
    let text = error.map { "\($0)" } ?? ""
    for part in [
      "nb_decode", "NB_DIM=128", "2 requests", "64 query heads", "4 KV heads of 128", "nvfp4/fp8_e4m3", "701",
    ] {
      #expect(text.contains(part), "\(part) is missing in \(text)")
    }
  }

  @Test func kernelsOfAnotherLayoutVersionAreRefused() throws {
    let library = try open()
    let stream = try CUDAStream(library.context)
    Self.information.pointee.layout_version += 1
    defer { Self.information.pointee.layout_version -= 1 }
    let configuration = PagedDecode.Configuration(
      layout: try layout(), queryHeadCount: 64, softmaxScale: 1, maximumBatch: 1, maximumContextLength: 100,
      splitting: .init(target: 1, minimumTokens: 128))
    #expect(throws: CUDAError.self) { _ = try PagedDecode(configuration, library: library, on: stream) }
    #expect(FakeDriver.state.withLock { $0.memory.isEmpty })
  }

  @Test func storeAndDequantizeSayWhatTheCallSays() throws {
    let library = try open()
    let stream = try CUDAStream(library.context)
    let scales = DecodeScales(key: 0.5, value: 0.125)
    let store = try PagedStore(layout: try layout(), rowType: .f16, library: library)
    var call = PagedStore.Call(
      keys: 0x1000, values: 0x2000, slots: 0x3000, cache: 0x4000, pageStride: 512, rows: 100, scales: scales)
    call.keyStride = 4096
    FakeDriver.state.withLock { $0.argumentByteCount = MemoryLayout<nb_store_arguments>.size }
    try store.run(call, on: stream)
    call.rows = 0
    try store.run(call, on: stream)
    let stores = FakeDriver.state.withLock { $0.launches }
    #expect(stores.count == 1, "no rows, no launch")
    let stored = try #require(stores.first).argument.withUnsafeBytes { $0.loadUnaligned(as: nb_store_arguments.self) }
    #expect(stored.keys == 0x1000 && stored.values == 0x2000 && stored.slots == 0x3000 && stored.cache == 0x4000)
    #expect(stored.key_stride == 4096 && stored.value_stride == 512 && stored.rows == 100 && stored.dim == 128)
    #expect(store.kernel.instance.defines.contains(.init("NB_ROW_TYPE", ActivationType.f16.rawValue)))
    #expect(stored.key_scale == 0.5 && stored.value_scale == 0.125)

    let dequantize = try PagedDequantize(layout: try layout(), outputType: .f32, library: library)
    FakeDriver.state.withLock { $0.argumentByteCount = MemoryLayout<nb_dequantize_arguments>.size }
    let range = PagedDequantize.Call(
      keys: 0x1000, values: 0, cache: 0x4000, pageStride: 512, pageTable: 0x5000, tokens: 7..<107, scales: scales)
    try dequantize.run(range, on: stream)
    let decoded = try #require(FakeDriver.state.withLock { $0.launches.last })
      .argument.withUnsafeBytes { $0.loadUnaligned(as: nb_dequantize_arguments.self) }
    #expect(decoded.keys == 0x1000 && decoded.values == 0 && decoded.page_table == 0x5000)
    #expect(decoded.first_token == 7 && decoded.tokens == 100 && decoded.output_type == 0)
    #expect(throws: CUDAError.self) {
      _ = try PagedDequantize(layout: try layout(), outputType: .f16, library: library)
    }
  }

  @Test func poolsCheckTheirShape() throws {
    let library = try open()
    #expect(throws: CUDAError.self) {
      _ = try DevicePagePool(library.context, layout: try layout(), layerCount: 2, pageCount: 4, scales: [.one])
    }
    let stream = try CUDAStream(library.context)
    let pool = try DevicePagePool(
      library.context, layout: try layout(), layerCount: 2, pageCount: 3, scales: [.one, .one])
    #expect(pool.recordBytes == 64 * 4 * (72 + 128) && pool.pageStride == 2 * pool.recordBytes)
    #expect(try pool.address(layer: 1) == pool.address(layer: 0) + UInt64(pool.recordBytes))
    #expect(throws: CUDAError.self) { try pool.address(layer: 2) }
    try pool.fill(byte: 3, on: stream)
    let record = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: pool.recordBytes)
    defer { record.deallocate() }
    record.initialize(repeating: 9)
    try pool.upload(UnsafeBufferPointer(record), toPage: 1, layer: 1, on: stream)
    try pool.copyPage(1, to: 2, on: stream)
    #expect(try pool.record(page: 2, layer: 1, on: stream).allSatisfy { $0 == 9 })
    #expect(try pool.record(page: 2, layer: 0, on: stream).allSatisfy { $0 == 3 })
    #expect(throws: CUDAError.self) { try pool.upload(UnsafeBufferPointer(record), toPage: 3, layer: 0, on: stream) }
    #expect(throws: CUDAError.self) { _ = try pool.record(page: -1, on: stream) }
  }
}
