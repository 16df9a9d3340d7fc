import CSIMD
import Operators

/// Arrays of the expert layers: rows grouped by expert.
final class ExpertScratch {
  /// [T, experts] the router's products.
  let logits: CPUActivations
  /// [T * expertsPerToken] chosen experts and their weights, token after token.
  private var chosen: [Int32] = []
  private(set) var weights: [Float] = []
  /// [T * expertsPerToken] place of each choice among the rows grouped by expert.
  private(set) var places: [Int32] = []
  /// [experts + 1] prefix sums of rows.
  private(set) var offsets: [Int32] = []
  /// [experts] the next free row of each.
  private var next: [Int32] = []
  /// Experts that have rows, ascending.
  private(set) var used: [Int] = []
  /// One a worker.
  private var choosers: [ExpertChooser] = []
  /// Rows grouped by expert.
  let inputs: CPUActivations
  let gated: CPUActivations
  let outputs: CPUActivations

  init(experts: Int, inputs: Int, intermediate: Int, outputs: Int) {
    logits = CPUActivations(width: experts)
    self.inputs = CPUActivations(width: inputs)
    gated = CPUActivations(width: intermediate)
    self.outputs = CPUActivations(width: outputs)
  }

  func fits(experts: Int, inputs: Int, intermediate: Int, outputs: Int) -> Bool {
    logits.width == experts && self.inputs.width == inputs && gated.width == intermediate
      && self.outputs.width == outputs
  }

  func reserve(rows: Int, routing: ExpertRouting, workers: Int) {
    let count = rows * routing.expertsPerToken
    if choosers.count != workers || choosers.first?.routing != routing {
      choosers = (0..<workers).map { _ in ExpertChooser(routing) }
    }
    logits.reserve(rows: rows)
    for array in [inputs, gated, outputs] { array.reserve(rows: count) }
    guard count > chosen.count else { return }
    chosen = Array(repeating: 0, count: count)
    weights = Array(repeating: 0, count: count)
    places = chosen
  }

  /// Calls `body` with `chosen`, `weights` and one chooser a worker.
  func withChoices(
    _ body: (UnsafeMutablePointer<Int32>, UnsafeMutablePointer<Float>, UnsafeMutablePointer<ExpertChooser>) -> Void
  ) {
    chosen.withUnsafeMutableBufferPointer { chosen in
      weights.withUnsafeMutableBufferPointer { weights in
        choosers.withUnsafeMutableBufferPointer { choosers in
          guard let chosen = chosen.baseAddress, let weights = weights.baseAddress, let choosers = choosers.baseAddress
          else { return }
          body(chosen, weights, choosers)
        }
      }
    }
  }

  /// Counting sort of the choices by expert; tokens keep their order.
  func group(rows: Int, routing: ExpertRouting) {
    let count = rows * routing.expertsPerToken
    offsets.removeAll(keepingCapacity: true)
    for _ in 0...routing.expertCount { offsets.append(0) }
    for index in 0..<count { offsets[Int(chosen[index]) + 1] += 1 }
    next.removeAll(keepingCapacity: true)
    used.removeAll(keepingCapacity: true)
    for expert in 0..<routing.expertCount {
      next.append(offsets[expert])
      if offsets[expert + 1] > 0 { used.append(expert) }
      offsets[expert + 1] += offsets[expert]
    }
    for index in 0..<count {
      places[index] = next[Int(chosen[index])]
      next[Int(chosen[index])] += 1
    }
  }
}

extension CPUOperators: ExpertOperators {
  public func experts(
    _ x: CPUActivations, router: CPUMatrix, correction: CPUVector?, routing: ExpertRouting, gateUp: [CPUMatrix],
    down: [CPUMatrix], into output: CPUActivations
  ) {
    guard let firstDown = down.first, rowCount > 0 else { return }
    let scratch = expertScratch(
      experts: routing.expertCount, inputs: x.width, intermediate: firstDown.inputs, outputs: firstDown.outputs)
    let (rows, chosenPerRow) = (rowCount, routing.expertsPerToken)
    scratch.reserve(rows: rows, routing: routing, workers: workers.threadCount)

    linear(x, router, bias: nil, accumulate: false, into: scratch.logits)
    choose(scratch, routing: routing, correction: correction)
    scratch.group(rows: rows, routing: routing)
    forEachRow { row in
      for slot in row * chosenPerRow..<(row + 1) * chosenPerRow {
        scratch.inputs.row(Int(scratch.places[slot])).update(from: x.row(row), count: x.width)
      }
    }
    let mostRows = scratch.used.reduce(0) { max($0, Int(scratch.offsets[$1 + 1] - scratch.offsets[$1])) }
    let up = workerScratch.reserve(workers: workers.threadCount, floats: mostRows * Self.outputsPerPiece)
    forEachExpert(scratch, outputs: scratch.gated.width) { expert, rows, outputs, worker in
      self.gatedPiece(
        scratch.inputs.row(rows.lowerBound), rows: rows.count, stride: x.width, gateUp[expert], outputs: outputs,
        up: up[worker], into: scratch.gated.row(rows.lowerBound), outputStride: scratch.gated.width)
    }
    forEachExpert(scratch, outputs: output.width) { expert, rows, outputs, _ in
      self.multiplyPiece(
        scratch.gated.row(rows.lowerBound), rows: rows.count, stride: scratch.gated.width, down[expert],
        outputs: outputs, into: scratch.outputs.row(rows.lowerBound), outputStride: output.width)
    }
    // Ascending experts, whatever the grouping: the sum's order is the token's own.
    forEachRow { row in
      for slot in row * chosenPerRow..<(row + 1) * chosenPerRow {
        nb_add_scaled(
          self.level, scratch.outputs.row(Int(scratch.places[slot])), scratch.weights[slot], Int64(output.width),
          output.row(row))
      }
    }
  }

  private func choose(_ scratch: ExpertScratch, routing: ExpertRouting, correction: CPUVector?) {
    let count = routing.expertsPerToken
    scratch.withChoices { experts, weights, choosers in
      // Each row has places of its own, and each worker a chooser of its own.
      nonisolated(unsafe) let (experts, weights, choosers) = (experts, weights, choosers)
      let (rows, piece) = (rowCount, 32)
      workers.run((rows + piece - 1) / piece) { index, worker in
        for row in index * piece..<min((index + 1) * piece, rows) {
          choosers[worker].choose(
            logits: scratch.logits.row(row), correction: correction?.values, experts: experts + row * count,
            weights: weights + row * count)
        }
      }
    }
  }

  private static var outputsPerPiece: Int { 64 }

  /// Pieces of work: some outputs of one expert for all its rows.
  private func forEachExpert(
    _ scratch: ExpertScratch, outputs width: Int,
    _ body: (_ expert: Int, _ rows: Range<Int>, _ outputs: Range<Int>, _ worker: Int) -> Void
  ) {
    let (used, offsets) = (scratch.used, scratch.offsets)
    let pieces = (width + Self.outputsPerPiece - 1) / Self.outputsPerPiece
    workers.run(used.count * pieces) { piece, worker in
      let expert = used[piece / pieces]
      let first = piece % pieces * Self.outputsPerPiece
      body(
        expert, Int(offsets[expert])..<Int(offsets[expert + 1]), first..<min(first + Self.outputsPerPiece, width),
        worker)
    }
  }
}
