import CKernelSources
import CUDABackend
import CUDASupport
import FakeCUDADriver
import KVQuantization
import Operators
import PagedCache
import Testing

/// Latent attention: what the kernels take, what they refuse and why, and what a launch hands to the driver.
@Suite(.serialized) struct LatentAttentionTests {
  private func layout(
    _ recipe: KVRecipe = .nvfp4, rope: KVRecipe = .bf16, latentDimension: Int = 512, ropeDimension: Int = 64,
    pageSize: Int = 64
  ) throws -> MLALayout {
    try MLALayout(
      latentDimension: latentDimension, ropeDimension: ropeDimension, pageSize: pageSize, recipeLatent: recipe,
      recipeRope: rope)
  }

  @Test func theKernelsAndTheRegistryRefuseTheSame() throws {
    for recipe in KVRecipe.allCases {
      for rope in KVRecipe.allCases {
        for (latentDimension, ropeDimension) in [(512, 64), (64, 64), (512, 512), (256, 32)] {
          for pageSize in [16, 48, 64, 128, 256] {
            for heads in [1, 16, 128, 129] {
              let layout = try layout(
                recipe, rope: rope, latentDimension: latentDimension, ropeDimension: ropeDimension, pageSize: pageSize)
              let obstacles = CUDAAttention.obstacles(layout: .mla(layout), queryHeadCount: heads)
              let answer = try SupportRegistry.standard.support(
                of: CUDAAttention.name, for: .decode,
                AttentionSubject(
                  geometry: .mla(latentDimension: latentDimension, ropeDimension: ropeDimension), queryHeadCount: heads,
                  key: recipe, value: recipe, rope: rope, pageSize: pageSize, device: .cuda(major: 9, minor: 0)))
              #expect(answer.isSupported == obstacles.isEmpty, "\(layout), \(heads): \(answer), \(obstacles)")
            }
          }
        }
      }
    }
  }

  @Test func everyObstacleIsNamedWithItsValue() throws {
    let layout = try layout(.f32, rope: .f32, latentDimension: 256, ropeDimension: 32, pageSize: 48)
    let reasons = CUDAAttention.obstacles(layout: .mla(layout), queryHeadCount: 129)
    #expect(reasons.count == 6)
    let parts = [
      "latents in f32", "rotary keys in f32", "latent of 256", "rotary key of 32", "page size of 48", "129 query heads",
    ]
    for (reason, part) in zip(reasons, parts) {
      #expect(reason.contains(part) && reason.contains("expected") && reason.contains("try"), "\(reason)")
    }
  }

  @Test func plansThatCannotBeAreRefused() throws {
    func configuration(
      _ change: (inout PagedLatentDecode.Configuration) -> Void
    ) throws -> PagedLatentDecode.Configuration {
      var configuration = PagedLatentDecode.Configuration(
        layout: try layout(), queryHeadCount: 128, softmaxScale: 0.07, maximumBatch: 4, maximumContextLength: 1000,
        splitting: .init(target: 66, minimumTokens: 512))
      change(&configuration)
      return configuration
    }
    try PagedLatentDecode.validate(configuration { _ in })
    let wrong: [(inout PagedLatentDecode.Configuration) -> Void] = [
      { $0.queryLength = 9 }, { $0.maximumBatch = 0 }, { $0.maximumContextLength = 0 }, { $0.queryHeadCount = 129 },
      { $0.splitting = .init(target: 0, minimumTokens: 1) }, { $0.softmaxScale = .nan },
    ]
    for change in wrong {
      let configuration = try configuration(change)
      #expect(throws: CUDAError.self) { try PagedLatentDecode.validate(configuration) }
    }
  }

  /// The kernel's own constant.
  nonisolated(unsafe) private static let information: UnsafeMutablePointer<nb_latent_decode_information> = {
    let memory = UnsafeMutablePointer<nb_latent_decode_information>.allocate(capacity: 1)
    memory.initialize(
      to: nb_latent_decode_information(
        threads: 384, shared_bytes: 230_000, rows: NB_LATENT_ROWS, layout_version: NB_LATENT_LAYOUT_VERSION))
    return memory
  }()

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

  private func open() throws -> KernelLibrary {
    FakeDriver.reset {
      $0.globals["nb_latent_decode_configuration"] = (
        UInt64(UInt(bitPattern: Self.information)), MemoryLayout<nb_latent_decode_information>.size
      )
      $0.argumentByteCount = MemoryLayout<nb_latent_decode_arguments>.size
    }
    return try KernelLibrary(
      context: try FakeDriver.context(), compiler: EmptyCompiler(), sources: .embedded, cache: nil)
  }

  @Test func aDecodeIsTwoLaunchesThatSayWhatTheCallSays() throws {
    let library = try open()
    let stream = try CUDAStream(library.context)
    func plan(_ maximumContextLength: Int) throws -> PagedLatentDecode {
      try PagedLatentDecode(
        PagedLatentDecode.Configuration(
          layout: try layout(), queryHeadCount: 96, queryLength: 2, softmaxScale: 0.25, maximumBatch: 3,
          maximumContextLength: maximumContextLength, splitting: .init(target: 33, minimumTokens: 1024)),
        library: library, on: stream)
    }
    let long = try plan(10_000)
    // Ten splits a request at most, 192 rows in three tiles of 64, 512 values and two sums each.
    #expect(long.workspaceBytes == 3 * 10 * 3 * 64 * 514 * 4)
    let call = PagedDecode.Call(
      queries: 0x1000, output: 0x2000, cache: 0x3000, pageStride: 4096, pageTable: 0x4000, pageTableStride: 160,
      contextLengths: 0x5000, batch: 2, scales: DecodeScales(key: 0.5, value: 0.125))
    try long.run(call, on: stream)
    let launches = FakeDriver.state.withLock { $0.launches }
    #expect(launches.count == 2)
    // 384 rows are more than two a multiprocessor: a warp takes one.
    #expect(launches[1].shape == [2 * 2 * 96 / 8, 1, 1, 256, 1, 1, 0])
    for launch in launches {
      let arguments = launch.argument.withUnsafeBytes { $0.loadUnaligned(as: nb_latent_decode_arguments.self) }
      #expect(arguments.queries == 0x1000 && arguments.output == 0x2000 && arguments.cache == 0x3000)
      #expect(arguments.query_stride == 96 * 576 && arguments.output_stride == 96 * 512)
      #expect(arguments.heads == 96 && arguments.query_length == 2 && arguments.page_shift == 6)
      #expect(arguments.partial_sums == arguments.partial_outputs + UInt64(3 * 10 * 3 * 64 * 512 * 4))
      // The rotary key's recipe has no decode scale.
      #expect(arguments.latent_scale == 0.5 && arguments.rope_scale == 1 && arguments.softmax_scale == 0.25)
    }

    // Few rows: four blocks take one.
    var single = call
    single.batch = 1
    try long.run(single, on: stream)
    #expect(FakeDriver.state.withLock { $0.launches.last?.shape } == [2 * 96, 4, 1, 256, 1, 1, 0])

    // Where no request can have two splits, there is nothing to merge.
    FakeDriver.state.withLock { $0.launches = [] }
    try plan(1023).run(call, on: stream)
    #expect(FakeDriver.state.withLock { $0.launches.count } == 1)
  }

  @Test func aStoreSaysWhatTheCallSays() throws {
    let library = try open()
    let stream = try CUDAStream(library.context)
    FakeDriver.state.withLock { $0.argumentByteCount = MemoryLayout<nb_latent_store_arguments>.size }
    let store = try PagedLatentStore(layout: try layout(.fp8E4M3, rope: .fp8E4M3), rowType: .f16, library: library)
    var call = PagedStore.Call(
      keys: 0x1000, values: 0x2000, slots: 0x3000, cache: 0x4000, pageStride: 512, rows: 100,
      scales: DecodeScales(key: 0.5, value: 0.125))
    call.keyStride = 4096
    try store.run(call, on: stream)
    call.rows = 0
    try store.run(call, on: stream)
    let launches = FakeDriver.state.withLock { $0.launches }
    #expect(launches.count == 1, "no rows, no launch")
    let launch = try #require(launches.first)
    #expect(launch.shape == [16, 1, 1, 256, 1, 1, 0])
    let arguments = launch.argument.withUnsafeBytes { $0.loadUnaligned(as: nb_latent_store_arguments.self) }
    #expect(arguments.latents == 0x1000 && arguments.ropes == 0x2000 && arguments.rows == 100)
    #expect(arguments.latent_stride == 4096 && arguments.rope_stride == 64)
    #expect(arguments.latent_scale == 0.5 && arguments.rope_scale == 0.125)
  }
}
