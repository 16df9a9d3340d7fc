import CPUBackend
import CSIMD
import KVQuantization
import Operators
import PagedCache
import Testing

@Suite struct FastAttentionTests {
  static let pool = WorkerPool(threadCount: 2)

  private func layout(_ key: KVRecipe, _ value: KVRecipe, heads: Int = 2, dimension: Int = 64, page: Int = 32) throws
    -> CacheLayout
  {
    .mha(
      try MHALayout(
        kvHeadCount: heads, headDimension: dimension, pageSize: page, recipeK: key, recipeV: value))
  }

  /// Queries and probabilities have 23 bits at least, whatever the recipe; 16 where that is asked for and makes a difference.
  private func tolerance(_ precision: AttentionPrecision, _ level: nb_level) -> Double {
    precision == .fast && AttentionPrecision.matters(at: level, key: .nvfp4, value: .nvfp4) ? 2e-4 : 1e-5
  }

  /// Compares with the reference at every level and precision.
  private func check(_ fixture: AttentionFixture, _ note: String) {
    let wanted = fixture.run(ReferenceAttention())
    for level in supportedLevels {
      for precision in AttentionPrecision.allCases {
        let found = fixture.run(FastAttention(workers: Self.pool, level: level, precision: precision))
        let error = relativeError(found, wanted)
        #expect(
          error <= tolerance(precision, level),
          "\(note), \(precision) precision at \(String(cString: nb_level_name(level))): \(error)")
      }
    }
  }

  @Test(arguments: KVRecipe.allCases, [64, 80, 96, 128, 192, 256, 48])
  func headDimensions(recipe: KVRecipe, dimension: Int) throws {
    guard (try? recipe.validate(dimension: dimension)) != nil else { return }
    let fixture = try AttentionFixture(
      layout: layout(recipe, recipe, heads: 1, dimension: dimension), queryHeads: 2,
      sequences: [.init(context: 83, new: 1), .init(context: 20, new: 3)])
    check(fixture, "\(recipe) D \(dimension)")
  }

  @Test(arguments: [KVRecipe.bf16, .fp8E4M3, .nvfp4, .mxfp4], [1, 2, 3, 4, 5, 7, 8, 16])
  func groups(recipe: KVRecipe, group: Int) throws {
    let fixture = try AttentionFixture(
      layout: layout(recipe, recipe), queryHeads: 2 * group, sequences: [.init(context: 70, new: 1)])
    check(fixture, "\(recipe) group \(group)")
  }

  @Test(arguments: KVRecipe.allCases, KVRecipe.allCases)
  func mixedRecipes(key: KVRecipe, value: KVRecipe) throws {
    let fixture = try AttentionFixture(
      layout: layout(key, value, heads: 1), queryHeads: 3, sequences: [.init(context: 70, new: 2)])
    check(fixture, "K \(key) V \(value)")
  }

  @Test(arguments: [16, 32, 48, 64, 128], [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 2100])
  func lengths(page: Int, context: Int) throws {
    for recipe in [KVRecipe.nvfp4, .bf16] {
      let fixture = try AttentionFixture(
        layout: layout(recipe, recipe, heads: 1, dimension: 32, page: page), queryHeads: 2,
        sequences: [.init(context: context, new: 1)])
      check(fixture, "\(recipe) page \(page) context \(context)")
    }
  }

  /// Seven chunks of three KV heads, which one or two threads take two at a time, so that a head's last are fewer, and three one by
  /// one.
  @Test(arguments: [KVRecipe.nvfp4, .fp8E4M3])
  func severalChunksAtATime(recipe: KVRecipe) throws {
    let fixture = try AttentionFixture(
      layout: layout(recipe, recipe, heads: 3, dimension: 16), queryHeads: 3, sequences: [.init(context: 6500, new: 1)])
    check(fixture, "\(recipe)")
    for (level, precision) in AttentionFixture.arithmetics {
      let bits = [1, 2, 3].map { threads in
        let workers = WorkerPool(threadCount: threads)
        return fixture.run(FastAttention(workers: workers, level: level, precision: precision)).map(\.bitPattern)
      }
      #expect(bits[1] == bits[0] && bits[2] == bits[0], "\(precision) precision at \(level)")
    }
  }

  @Test(arguments: [KVRecipe.nvfp4, .fp4MXBlock16, .fp8E4M3])
  func raggedBatchWithSharedPages(recipe: KVRecipe) throws {
    let fixture = try AttentionFixture(
      layout: layout(recipe, recipe), queryHeads: 4,
      sequences: [
        .init(context: 90, new: 1), .init(context: 75, new: 6, sharedPages: 2), .init(context: 5, new: 5),
        .init(context: 140, new: 40), .init(context: 1, new: 1),
      ])
    check(fixture, "\(recipe)")
  }

  /// Peaked softmax, tiny and huge stored values, block scales that are subnormal.
  @Test(
    arguments: KVRecipe.allCases,
    [(Float(4), Float(1e-3), Float(1)), (1, 1, 1e-4), (0.01, 100, 1), (1e-6, 1e4, 1e4), (1e5, 1e-6, 1e-6)])
  func extremeScales(recipe: KVRecipe, scale: (query: Float, key: Float, value: Float)) throws {
    for decode in [DecodeScales(key: scale.key / 448, value: scale.value / 448), .one] {
      let fixture = try AttentionFixture(
        layout: layout(recipe, recipe, heads: 1), queryHeads: 2, sequences: [.init(context: 70, new: 1)],
        scales: decode,
        queryScale: scale.query, keyScale: scale.key, valueScale: scale.value)
      let wanted = fixture.run(ReferenceAttention())
      let isZero = wanted.allSatisfy { $0 == 0 }
      for (level, precision) in AttentionFixture.arithmetics {
        let found = fixture.run(FastAttention(workers: Self.pool, level: level, precision: precision))
        let error = isZero ? Double(found.map(abs).max() ?? 0) : relativeError(found, wanted)
        #expect(
          error <= (isZero ? 0 : tolerance(precision, level) * Double(max(1, scale.query * scale.key))),
          "\(recipe) \(scale) \(precision) precision at \(level): \(error)")
      }
    }
  }

  /// A row has the same bits alone, in a batch, in any chunk of a prefill and with any number of threads.
  @Test(
    arguments: [
      (KVRecipe.nvfp4, KVRecipe.nvfp4), (.bf16, .bf16), (.fp8E4M3, .nvfp4), (.mxfp4, .fp8E4M3), (.f32, .fp4MXBlock16),
    ], [1, 3, 4])
  func bitsDependOnTheRowAlone(recipes: (KVRecipe, KVRecipe), group: Int) throws {
    let fixture = try AttentionFixture(
      layout: layout(recipes.0, recipes.1, page: 16), queryHeads: 2 * group,
      sequences: [.init(context: 1100, new: 37), .init(context: 40, new: 40), .init(context: 1030, new: 1)])
    let width = fixture.queryHeads * fixture.outputWidth
    for (level, precision) in AttentionFixture.arithmetics {
      func backend(_ workers: WorkerPool) -> FastAttention {
        FastAttention(workers: workers, level: level, precision: precision)
      }
      let wanted = fixture.run(backend(Self.pool)).map(\.bitPattern)
      for threads in [1, 3] {
        let found = fixture.run(backend(WorkerPool(threadCount: threads))).map(\.bitPattern)
        #expect(found == wanted, "\(threads) threads")
      }
      let backend = backend(Self.pool)
      for (sequence, ranges) in [
        (0, [0..<1, 1..<8, 8..<20, 20..<37, 36..<37]), (1, [0..<5, 5..<6, 6..<40]), (2, [0..<1]),
      ] {
        for range in ranges {
          let (batch, queries, rows) = fixture.step(sequence: sequence, tokens: range)
          let found = fixture.run(backend, on: batch, queries: queries).map(\.bitPattern)
          #expect(found == Array(wanted[rows.lowerBound * width..<rows.upperBound * width]), "\(sequence) \(range)")
        }
      }
    }
  }

  /// A first token that takes half of the attention and has a value of zero, as many models learn it: what is left is the sum of all
  /// others, which 23 bits of the greatest probability would round by 1e-4 and 16 by half a percent.
  @Test func roundingKeepsTheBitsOfTokensFarBelowTheMaximum() throws {
    let fixture = try AttentionFixture(
      layout: layout(.nvfp4, .nvfp4, heads: 1), queryHeads: 2, sequences: [.init(context: 1500, new: 1)])
    let first = Int(fixture.batch.pageTables[0])
    for region in fixture.layout.regions {
      let row = (0..<64).map { region.kind == .key ? fixture.queries[$0] + fixture.queries[64 + $0] : 0 }
      var view = nb_region(region, record: fixture.pool.record(page: first, layer: 1))
      nb_region_store(
        nb_level_active(), &view, 0, row, fixture.pool.decodeScale(layer: 1, kind: region.kind), nil)
    }
    let wanted = fixture.run(ReferenceAttention())
    for (level, precision) in AttentionFixture.arithmetics {
      let error = relativeError(
        fixture.run(FastAttention(workers: Self.pool, level: level, precision: precision)), wanted)
      #expect(error <= 1e-4, "\(precision) precision at \(String(cString: nb_level_name(level))): \(error)")
    }
  }

  /// The precision is a choice where kernels round, and none elsewhere.
  @Test func precisionMattersWithAVX512Alone() throws {
    for (key, value) in [(KVRecipe.nvfp4, KVRecipe.nvfp4), (.bf16, .mxfp4), (.mxfp4, .fp8E4M3), (.fp8E4M3, .bf16)] {
      let fixture = try AttentionFixture(
        layout: layout(key, value, heads: 1), queryHeads: 4, sequences: [.init(context: 300, new: 1)])
      for level in supportedLevels {
        let bits = AttentionPrecision.allCases.map {
          fixture.run(FastAttention(workers: Self.pool, level: level, precision: $0)).map(\.bitPattern)
        }
        #expect(
          (bits[0] != bits[1]) == AttentionPrecision.matters(at: level, key: key, value: value),
          "K \(key) V \(value) at \(String(cString: nb_level_name(level)))")
      }
    }
  }

  /// What lies past a row's position doesn't matter.
  @Test(arguments: [KVRecipe.nvfp4, .bf16, .fp8E4M3])
  func laterTokensDoNotMatter(recipe: KVRecipe) throws {
    let fixture = try AttentionFixture(
      layout: layout(recipe, recipe, heads: 1), queryHeads: 2, sequences: [.init(context: 85, new: 2)])
    let backend = FastAttention(workers: Self.pool)
    let before = fixture.run(backend).map(\.bitPattern)
    let last = Int(fixture.batch.pageTables[2])
    for region in fixture.layout.regions {
      var view = nb_region(region, record: fixture.pool.record(page: last, layer: 1))
      for token in 85 % 32..<32 {
        nb_region_store(
          nb_level_active(), &view, Int32(token), [Float](repeating: 9, count: region.dimension), 0.01, nil)
      }
    }
    #expect(fixture.run(backend).map(\.bitPattern) == before)
  }

  // MARK: Latent attention

  private func latentLayout(_ latent: KVRecipe, _ rope: KVRecipe, dimension: Int = 128, ropeDimension: Int = 32) throws
    -> CacheLayout
  {
    .mla(
      try MLALayout(
        latentDimension: dimension, ropeDimension: ropeDimension, pageSize: 32, recipeLatent: latent, recipeRope: rope))
  }

  @Test(arguments: KVRecipe.allCases, [KVRecipe.bf16, .f32, .fp8E4M3, .nvfp4])
  func latent(recipe: KVRecipe, rope: KVRecipe) throws {
    for heads in [1, 5, 70] where heads < 70 || rope == .bf16 {
      let fixture = try AttentionFixture(
        layout: latentLayout(recipe, rope), queryHeads: heads, sequences: [.init(context: 83, new: 2)])
      check(fixture, "latent \(recipe) rope \(rope) heads \(heads)")
    }
  }

  @Test(arguments: [(KVRecipe.nvfp4, KVRecipe.bf16), (.bf16, .bf16), (.fp8E4M3, .nvfp4), (.mxfp4, .bf16)])
  func latentBitsDependOnTheRowAlone(recipes: (KVRecipe, KVRecipe)) throws {
    let fixture = try AttentionFixture(
      layout: latentLayout(recipes.0, recipes.1, dimension: 64), queryHeads: 3,
      sequences: [.init(context: 1100, new: 9), .init(context: 30, new: 30)])
    let width = fixture.queryHeads * fixture.outputWidth
    for (level, precision) in AttentionFixture.arithmetics {
      let wanted = fixture.run(FastAttention(workers: Self.pool, level: level, precision: precision)).map(\.bitPattern)
      let backend = FastAttention(workers: WorkerPool(threadCount: 3), level: level, precision: precision)
      for (sequence, range) in [(0, 0..<1), (0, 1..<9), (1, 29..<30), (1, 3..<7)] {
        let (batch, queries, rows) = fixture.step(sequence: sequence, tokens: range)
        let found = fixture.run(backend, on: batch, queries: queries).map(\.bitPattern)
        #expect(found == Array(wanted[rows.lowerBound * width..<rows.upperBound * width]), "\(sequence) \(range)")
      }
    }
  }
}
