import CPUBackend
import CSIMD
import KVQuantization
import Operators
import PagedCache
import Testing

/// Every cell of the support table that names a CPU backend is run here; what the table refuses is refused.
@Suite struct SupportTableTests {
  /// A step of the phase: a prefill chunk behind some context, or one token of each of two sequences.
  static func sequences(_ phase: AttentionPhase) -> [AttentionFixture.Sequence] {
    switch phase {
    case .prefill: [.init(context: 37, new: 9)]
    case .decode: [.init(context: 21, new: 1), .init(context: 70, new: 1)]
    }
  }

  static func layout(_ kind: SupportRow.Kind, _ recipe: KVRecipe, dimension: Int) throws -> CacheLayout {
    switch kind {
    case .gqa:
      .mha(
        try MHALayout(
          kvHeadCount: 2, headDimension: dimension, pageSize: 16, recipeK: recipe, recipeV: recipe))
    case .mla:
      .mla(
        try MLALayout(
          latentDimension: 2 * dimension, ropeDimension: dimension, pageSize: 16, recipeLatent: recipe,
          recipeRope: recipe))
    }
  }

  static func subject(
    _ kind: SupportRow.Kind, _ recipe: KVRecipe, dimension: Int, level: nb_level
  ) -> AttentionSubject {
    AttentionSubject(
      geometry: kind == .gqa
        ? .mha(kvHeadCount: 2, headDimension: dimension)
        : .mla(latentDimension: 2 * dimension, ropeDimension: dimension),
      queryHeadCount: 4, key: recipe, value: recipe, rope: recipe, pageSize: 16,
      device: .cpu(AttentionDevice.CPULevel(rawValue: Int(level.rawValue)) ?? .portable))
  }

  @Test(arguments: SupportRegistry.standard.rows.filter { $0.device == .cpu })
  func cells(row: SupportRow) throws {
    let workers = WorkerPool(threadCount: 1)
    for recipe in KVRecipe.allCases {
      for dimension in [32, 72] {
        guard (try? recipe.validate(dimension: dimension)) != nil else { continue }
        let fixture = try AttentionFixture(
          layout: try Self.layout(row.kind, recipe, dimension: dimension), queryHeads: 4,
          sequences: Self.sequences(row.phase))
        let expected = fixture.run(ReferenceAttention())
        for level in row.backend == "cpu" ? supportedLevels : [nb_level_active()] {
          let subject = Self.subject(row.kind, recipe, dimension: dimension, level: level)
          let answer = try SupportRegistry.standard.support(of: row.backend, for: row.phase, subject)
          guard answer.isSupported else {
            #expect(row.backend == "cpu" && !FastAttention.supports(fixture.layout), "\(answer.reasons)")
            continue
          }
          let backend: any AttentionBackend =
            row.backend == "cpu" ? FastAttention(workers: workers, level: level) : ReferenceAttention()
          let error = relativeError(fixture.run(backend), expected)
          #expect(
            error <= 1e-5, "\(row.backend) \(row.phase) \(row.kind) \(recipe) at level \(level.rawValue): \(error)")
        }
      }
    }
  }

  /// The levels of the table are those of the kernels.
  @Test func levelsAgree() {
    for level in AttentionDevice.CPULevel.allCases {
      #expect(String(cString: nb_level_name(nb_level(UInt32(level.rawValue)))) == level.name)
    }
  }

  /// Prefill and decode on different backends, in both orders: each sequence is worked off by its own.
  @Test(arguments: SupportRow.Kind.allCases, [KVRecipe.nvfp4, .fp8E4M3, .bf16])
  func phasesGoToTheirBackends(kind: SupportRow.Kind, recipe: KVRecipe) throws {
    let fixture = try AttentionFixture(
      layout: try Self.layout(kind, recipe, dimension: 64), queryHeads: 4,
      sequences: [
        .init(context: 21, new: 1), .init(context: 37, new: 9), .init(context: 30, new: 1), .init(context: 5, new: 1),
        .init(context: 18, new: 2),
      ])
    let fast = FastAttention(workers: WorkerPool(threadCount: 1))
    let slow = ReferenceAttention()
    for (prefill, decode) in [(fast, slow), (slow, fast)] as [(any AttentionBackend, any AttentionBackend)] {
      let (prefilled, decoded) = (fixture.run(prefill), fixture.run(decode))
      let mixed = fixture.run(PhasedAttention(prefill: prefill, decode: decode))
      let width = 4 * fixture.outputWidth
      for sequence in 0..<5 {
        let rows =
          Int(fixture.batch.queryOffsets[sequence]) * width..<Int(fixture.batch.queryOffsets[sequence + 1]) * width
        let expected = rows.count == width ? decoded : prefilled
        #expect(Array(mixed[rows]) == Array(expected[rows]), "sequence \(sequence)")
      }
      #expect(mixed != prefilled && mixed != decoded)
    }
  }
}
