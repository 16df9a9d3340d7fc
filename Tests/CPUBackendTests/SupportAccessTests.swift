import CPUBackend
import CSIMD
import KVQuantization
import Operators
import PagedCache
import Testing

/// How the kernels really read each cell of the support table: after a run over scratch memory full of a pattern, a tile that still
/// shows the pattern was never decoded into.
@Suite struct SupportAccessTests {
  /// Access to keys (or the latent), values and rotary keys, as one run shows it.
  struct Seen: Equatable {
    var key: CacheAccess
    var value: CacheAccess
    var isRopeDecoded: Bool
  }

  private static let pattern: UInt8 = 0xA5

  /// Runs one piece of `tokens` new tokens behind 64 others.
  static func look(
    _ layout: CacheLayout, level: nb_level, tokens: Int, heads: Int, ropeValue: Float? = nil
  ) throws -> Seen {
    let context = 64 + tokens
    let fixture = try AttentionFixture(
      layout: layout, queryHeads: heads, sequences: [.init(context: context, new: tokens)])
    if let ropeValue { fill(fixture, .rope, with: ropeValue) }
    var output = [Float](repeating: 0, count: tokens * heads * fixture.outputWidth)
    var piece = nb_attention_piece()
    piece.level = level
    piece.page_size = Int32(layout.pageSize)
    piece.records = UnsafePointer(fixture.pool.record(page: 0, layer: 1).assumingMemoryBound(to: UInt8.self))
    piece.record_stride = Int64(fixture.pool.pageBytes)
    piece.softmax_scale = fixture.softmaxScale
    piece.query_stride = Int64(heads * fixture.queryWidth)
    piece.output_stride = Int64(heads * fixture.outputWidth)
    (piece.tokens, piece.heads, piece.first_position) = (Int32(tokens), Int32(heads), 64)
    piece.last_chunk = 1
    for region in layout.regions {
      let view = nb_attention_region(
        recipe: nb_recipe(UInt32(region.recipe.rawValue)), dimension: Int32(region.dimension),
        code_offset: Int64(region.codeOffset), scale_offset: Int64(region.scaleOffset), decode_scale: 1)
      switch region.kind {
      case .key: piece.key = view
      case .value: piece.value = view
      case .rope: piece.rope = view
      case .latent: (piece.key, piece.value, piece.is_latent) = (view, view, 1)
      }
    }
    let byteCount = nb_attention_scratch_bytes(&piece)
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 64)
    defer { scratch.deallocate() }
    scratch.initializeMemory(as: UInt8.self, repeating: pattern)
    fixture.queries.withUnsafeBufferPointer { queries in
      output.withUnsafeMutableBufferPointer { output in
        fixture.batch.pageTables.withUnsafeBufferPointer { pages in
          (piece.queries, piece.output, piece.pages) = (queries.baseAddress, output.baseAddress, pages.baseAddress)
          nb_attention_run(&piece, scratch.baseAddress)
        }
      }
    }
    let tiles = nb_attention_scratch_tiles(&piece)
    func touched(_ start: Int, _ count: Int) -> Int {
      (scratch[start..<start + count].lastIndex { $0 != pattern }).map { $0 - start + 1 } ?? 0
    }
    let keys = touched(tiles.keys, tiles.keys_bytes)
    let values = touched(tiles.values, tiles.values_bytes)
    let first = scratch.loadUnaligned(fromByteOffset: tiles.keys, as: Float.self)
    return Seen(
      key: access(layout.regions[0].recipe, decodedBytes: keys, of: tiles.keys_bytes),
      value: access(
        (layout.regions.first { $0.kind == .value } ?? layout.regions[0]).recipe, decodedBytes: values,
        of: tiles.values_bytes),
      isRopeDecoded: ropeValue.map { first == $0 } ?? false)
  }

  /// A tile of floats is full, one of 16-bit numbers half full, one of bytes a quarter.
  private static func access(_ recipe: KVRecipe, decodedBytes: Int, of tileBytes: Int) -> CacheAccess {
    if decodedBytes > tileBytes / 2 { return .workspace("f32") }
    if decodedBytes > tileBytes / 4 { return .workspace("bf16") }
    if decodedBytes > 0 { return .workspace("int8") }
    return recipe == .f32 || recipe == .bf16 ? .plain : .native
  }

  /// Makes every row of a region a constant.
  private static func fill(_ fixture: AttentionFixture, _ kind: CacheRegionKind, with value: Float) {
    for page in 0..<fixture.pool.pageCount {
      for region in fixture.layout.regions where region.kind == kind {
        var view = nb_region(region, record: fixture.pool.record(page: page, layer: 1))
        let row = [Float](repeating: value, count: region.dimension)
        for token in 0..<fixture.layout.pageSize {
          nb_region_store(nb_level_active(), &view, Int32(token), row, 1, nil)
        }
      }
    }
  }

  static func row(_ phase: AttentionPhase, _ kind: SupportRow.Kind) throws -> SupportRow {
    try #require(
      SupportRegistry.standard.rows.first { $0.backend == "cpu" && $0.phase == phase && $0.kind == kind })
  }

  static func device(_ level: nb_level) -> AttentionDevice {
    .cpu(AttentionDevice.CPULevel(rawValue: Int(level.rawValue)) ?? .portable)
  }

  /// A chunk of a prompt, or a request's newest token.
  static func tokens(_ phase: AttentionPhase) -> Int { phase == .prefill ? 7 : 1 }

  @Test(arguments: AttentionPhase.allCases, KVRecipe.allCases)
  func keysAndValues(phase: AttentionPhase, recipe: KVRecipe) throws {
    let row = try Self.row(phase, .gqa)
    let layout = CacheLayout.mha(
      try MHALayout(kvHeadCount: 1, headDimension: 64, pageSize: 16, recipeK: recipe, recipeV: recipe))
    for level in supportedLevels {
      for heads in [1, 4, 5, 8] {
        let seen = try Self.look(layout, level: level, tokens: Self.tokens(phase), heads: heads)
        let claimed = try #require(row.access(to: recipe, on: Self.device(level), groupSize: heads))
        #expect(seen.key == claimed && seen.value == claimed, "level \(level.rawValue), \(heads) heads: \(seen)")
      }
    }
  }

  /// The latent is read as keys and as values; the table tells the costlier of the two.
  @Test(arguments: AttentionPhase.allCases, KVRecipe.allCases)
  func latent(phase: AttentionPhase, recipe: KVRecipe) throws {
    let row = try Self.row(phase, .mla)
    let layout = CacheLayout.mla(
      try MLALayout(latentDimension: 64, ropeDimension: 32, pageSize: 16, recipeLatent: recipe, recipeRope: .bf16))
    for level in supportedLevels {
      for heads in [1, 8] {
        let seen = try Self.look(layout, level: level, tokens: Self.tokens(phase), heads: heads)
        let claimed = try #require(row.access(to: recipe, on: Self.device(level), groupSize: heads))
        #expect(seen.value == claimed, "level \(level.rawValue), \(heads) heads: \(seen)")
        #expect(seen.key == claimed || seen.key == .native || seen.key == .plain)
      }
    }
  }

  @Test(arguments: AttentionPhase.allCases, KVRecipe.allCases)
  func rotaryKey(phase: AttentionPhase, recipe: KVRecipe) throws {
    let row = try Self.row(phase, .mla)
    let layout = CacheLayout.mla(
      try MLALayout(latentDimension: 64, ropeDimension: 32, pageSize: 16, recipeLatent: .nvfp4, recipeRope: recipe))
    for level in supportedLevels {
      let seen = try Self.look(layout, level: level, tokens: Self.tokens(phase), heads: 4, ropeValue: 3)
      let claimed = try #require(row.access(to: recipe, on: Self.device(level), groupSize: 4, isRope: true))
      let isDecoded = if case .workspace = claimed { true } else { false }
      #expect(seen.isRopeDecoded == isDecoded, "level \(level.rawValue): \(claimed)")
    }
  }
}
