import CPUBackend
import Checkpoints
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import TestSupport

/// golden.safetensors: logits of transformers, written by tools/golden/logits.py.
struct GoldenLogits {
  struct Run: CustomStringConvertible {
    /// Recipes of keys and values, or of MLA's latent and rotary key.
    let recipes: (first: KVRecipe, second: KVRecipe)
    /// One pair a layer; nil: all 1.
    let scales: [DecodeScales]?
    /// [positions, columns]
    var logits: [Float]
    /// [positions - 1 - layer, columns] of each layer for multi-token prediction.
    var drafts: [[Float]]

    var isExact: Bool { recipes.first == .f32 && recipes.second == .f32 }
    var description: String {
      "\(recipes.first.name)+\(recipes.second.name)\(scales == nil ? "" : ".scaled")"
    }
  }

  private(set) var tokens: [Int32]
  private(set) var positions: [Int]
  let columns: [Int]
  private(set) var runs: [Run]

  static let resources = Repository.resources(of: "ModelFamiliesTests")
  static let models = Repository.path + "/Models"

  init(_ name: String) throws {
    let file = try SafetensorsFile(path: "\(Self.resources)/\(name)/golden.safetensors")
    func values<Value>(_ name: String, _: Value.Type) throws -> [Value] {
      let tensor = try file.tensor(named: name)
      return (0..<tensor.elementCount).map {
        tensor.bytes.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Value>.stride, as: Value.self)
      }
    }
    tokens = try values("tokens", Int32.self)
    positions = try values("positions", Int32.self).map { Int($0) }
    columns = try values("columns", Int32.self).map { Int($0) }
    runs = try file.tensorNames.filter { $0.hasPrefix("logits.") }.map { tensor in
      let run = String(tensor.dropFirst("logits.".count))
      let recipes = try run.split(separator: ".")[0].split(separator: "+").map { try KVRecipe.named(String($0)) }
      var scales: [DecodeScales]?
      if file.contains("scales." + run) {
        let pairs = try values("scales." + run, Float.self)
        scales = stride(from: 0, to: pairs.count, by: 2).map { DecodeScales(key: pairs[$0], value: pairs[$0 + 1]) }
      }
      return Run(
        recipes: (recipes[0], recipes[1]), scales: scales, logits: try values(tensor, Float.self),
        drafts: try (0..<8).map { "draft\($0).\(run)" }.filter(file.contains).map { try values($0, Float.self) })
    }
  }

  /// The same for the first tokens alone, which don't know of later ones.
  func prefix(_ count: Int) -> GoldenLogits {
    guard count < tokens.count else { return self }
    var result = self
    result.tokens = Array(tokens.prefix(count))
    result.positions = positions.filter { $0 < count }
    let kept = result.positions.count * columns.count
    for index in runs.indices {
      result.runs[index].logits = Array(runs[index].logits.prefix(kept))
      result.runs[index].drafts = runs[index].drafts.enumerated().map { layer, logits in
        Array(logits.prefix(kept - (layer + 1) * columns.count))
      }
    }
    return result
  }

  /// Relative L2 distance of each kept position's logits, ascending.
  /// - Parameters:
  ///   - logits: [tokens, vocabulary]
  ///   - expected: [rows, columns]
  func errors(_ logits: [Float], vocabulary: Int, expected: [Float]) -> [Double] {
    let rows = expected.count / columns.count
    return (0..<rows).map { row in
      var (difference, norm) = (0.0, 0.0)
      for (index, column) in columns.enumerated() {
        let want = Double(expected[row * columns.count + index])
        let found = Double(logits[positions[row] * vocabulary + column])
        difference += (found - want) * (found - want)
        norm += want * want
      }
      return (difference / norm).squareRoot()
    }.sorted()
  }
}

/// A teacher-forced run over tokens, with a pool of its own.
struct TeacherForcing {
  let model: any LanguageModel
  let pool: PagePool
  static let pageSize = 16

  init(_ model: any LanguageModel, recipes: CacheRecipes, scales: [DecodeScales]? = nil, tokenCount: Int) throws {
    self.model = model
    pool = try PagePool(
      layout: try model.cacheLayout(recipes, pageSize: Self.pageSize), layerCount: model.layerCount,
      pageCount: (tokenCount + Self.pageSize - 1) / Self.pageSize,
      scales: scales ?? Array(repeating: .one, count: model.layerCount))
  }

  /// Logits [tokens, vocabulary], the tokens fed `chunk` at a time.
  func logits(_ tokens: [Int32], chunk: Int) throws -> [Float] {
    // Pages in descending order, so that a page id and a place in the table differ.
    let pages = (0..<Int32(pool.pageCount)).reversed()
    var result = [Float](repeating: .nan, count: tokens.count * model.vocabularySize)
    for start in stride(from: 0, to: tokens.count, by: chunk) {
      let end = min(start + chunk, tokens.count)
      var batch = StepBatch()
      batch.append(tokens: tokens[start..<end], start: start, pages: Array(pages), logits: .all)
      try result.withUnsafeMutableBufferPointer { buffer in
        try model.forward(
          batch, pool: pool,
          logits: UnsafeMutableBufferPointer(
            rebasing: buffer[start * model.vocabularySize..<end * model.vocabularySize]))
      }
    }
    return result
  }
}

/// A model on the reference backend, or the fast one.
func loadModel(
  _ directory: String, threads: Int = 2, isFast: Bool = false, precision: AttentionPrecision = .full
) throws -> any LanguageModel {
  let workers = WorkerPool(threadCount: threads)
  return try loadModel(
    directory, attention: isFast ? FastAttention(workers: workers, precision: precision) : ReferenceAttention(),
    workers: workers)
}

func loadModel(
  _ directory: String, attention: any AttentionBackend, workers: WorkerPool
) throws -> any LanguageModel {
  try ModelLoader.load(
    try Checkpoint(directory: directory), operators: CPUOperators(attention: attention, workers: workers))
}
